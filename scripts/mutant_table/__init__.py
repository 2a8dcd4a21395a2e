"""The faults that `mutants.py` plants: each is a mistake somebody could make, or one the release makes."""

from mutant_table import algo, envs, interactive, losses, model, serve, train, worlds
from mutant_table.fault import Mutant

__all__ = ["MUTANTS", "TESTS", "Mutant"]

_PAGES = (algo, losses, model, worlds, envs, train, interactive, serve)

MUTANTS = [mutant for page in _PAGES for mutant in page.MUTANTS]
TESTS = {file: tests for page in _PAGES for file, tests in page.TESTS.items()}
"""File of the package -> the quick tests that must notice a fault in it."""
