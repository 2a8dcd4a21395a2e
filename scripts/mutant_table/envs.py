"""Faults in environments that crash, hang and lie."""

from mutant_table.fault import faults

TESTS = {
    "envs/pool.py": ["tests/envs/test_pool.py"],
    "envs/worker.py": ["tests/envs/test_pool.py"],
}

MUTANTS = [
    *faults(
        "envs/pool.py",
        (
            "a loss beside what was asked is forgotten",
            "elif slot in self._running:",
            "elif False:",
        ),
        (
            "an end is lost with the worker",
            "if slot in requests and not _ended(answers.get(slot)):",
            "if slot in requests:",
        ),
        ("a slot that was lost plays on", "if _ended(outcome):", "if False:"),
        (
            "a reset that was lost plays on",
            "{slot for slot, answer in seen.items() if not isinstance(answer, EnvLost)}",
            "set(seen)",
        ),
        ("a lost frame is forgotten", "self._lost[slot] = got", "pass"),
        ("one restart too few", "self._in_a_row > self._restarts", "self._in_a_row >= self._restarts"),
        ("an episode that ends forgives nothing", "(0 if ended else self._in_a_row)", "self._in_a_row"),
        ("answers are believed", "if flaw:", "if False:"),
        ("a liar lives on", 'losses.append(self._backend.discard(slot, f"lied: {flaw}"))', "pass"),
        ("no time to answer", "deadline=deadline) if workers", "deadline=deadline / 1e6) if workers"),
    ),
    *faults(
        "envs/worker.py",
        ("a broken environment plays on", "self.discard(slot)\n            return EnvLost", "return EnvLost"),
    ),
]
