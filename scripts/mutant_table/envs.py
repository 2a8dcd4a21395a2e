"""Faults in environments that crash, hang and lie."""

from mutant_table.fault import faults

TESTS = {
    "envs/pool.py": ["tests/envs/test_pool.py"],
    "envs/worker.py": ["tests/envs/test_pool.py"],
    "envs/host.py": ["tests/envs/test_pool.py"],
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
            "if slot in self._asked and not _ended(answers.get(slot)):",
            "if slot in self._asked:",
        ),
        ("a slot that was lost plays on", "if _ended(answer):", "if False:"),
        ("what a slot lost as it waited is not told", "= {**self._told}", "= {}"),
        ("one restart too few", "self._in_a_row > self._restarts", "self._in_a_row >= self._restarts"),
        ("an episode that ends forgives nothing", "(0 if ended else self._in_a_row)", "self._in_a_row"),
        ("answers are believed", "if flaw:", "if False:"),
        ("a liar lives on", 'losses.append(self._backend.discard(slot, f"lied: {flaw}"))', "pass"),
        ("no time to answer", "deadline=deadline) if workers", "deadline=deadline / 1e6) if workers"),
    ),
    *faults(
        "envs/worker.py",
        ("everybody is waited for", "left = self._owed() - least", "left = 0"),
        ("patience has no end", "<= left or now >= until", "<= left"),
    ),
    *faults(
        "envs/host.py",
        ("a broken environment plays on", "self.discard(slot)\n            return EnvLost", "return EnvLost"),
    ),
]
