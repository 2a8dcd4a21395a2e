"""Faults in the policy server."""

from mutant_table.fault import faults

TESTS = {
    "serve/wire.py": ["tests/serve/test_wire.py"],
    "serve/keys.py": ["tests/serve/test_keys.py"],
    "serve/batcher.py": ["tests/serve/test_batcher.py"],
    "serve/server.py": ["tests/serve/test_server.py"],
    "serve/client.py": ["tests/serve/test_client.py"],
}

MUTANTS = [
    *faults(
        "serve/wire.py",
        ("objects travel", "|[<>]f[248]", "|[<>]f[248]|.*O.*"),
        (
            "an array may claim more than it holds",
            "math.prod(shape) * dtype.itemsize != len(data)",
            "not shape",
        ),
    ),
    *faults(
        "serve/keys.py",
        ("LIBERO's gripper upside down", "closed=1.0,\n    open=-1.0,", "closed=-1.0,\n    open=1.0,"),
        (
            "the state's gripper as it comes",
            "_grippers(spec.state), opened, state",
            "_grippers(spec.state), state, state",
        ),
    ),
    *faults(
        "serve/batcher.py",
        ("first come, first served", "key=lambda w: w.deadline)", "key=lambda w: w.since)"),
        ("thoughts whatever the deadline", "max(fitting, default=min(self._quiet))", "max(self._quiet)"),
        ("what is left over waits for ever", "self._arrived.set()\n        else", "pass\n        else"),
    ),
    *faults(
        "serve/server.py",
        (
            "any key will do",
            "len(said) == 1 and hmac.compare_digest(",
            "len(said) == 1 or hmac.compare_digest(",
        ),
        ("web pages may ask", "origins=[None]", "origins=None"),
        ("answers under way are dropped", "self._connections - self._busy", "self._connections"),
    ),
    *faults(
        "serve/client.py",
        ("a late answer is taken for the next one", "self._drop()\n                raise", "raise"),
        ("whatever policy is there", "if greeting != self._greeting:", "if not greeting:"),
    ),
]
