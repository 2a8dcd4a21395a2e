"""Plants named faults in a copy of the package and requires the tests to catch every one.

    python scripts/mutants.py            # all, two at a time
    python scripts/mutants.py gae clip   # those whose name or file contains one of the words

Exits with 1 if a fault survives, if its place in the source is gone (old text not found exactly once), or if
the tests fail without any fault.
"""

import importlib
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from mutant_table import MUTANTS, TESTS, Mutant

T, R = TypeVar("T"), TypeVar("R")
ROOT = Path(__file__).resolve().parents[1]
OK, FAILED = int(pytest.ExitCode.OK), int(pytest.ExitCode.TESTS_FAILED)


def copy_package(folder: Path) -> None:
    """Only the sources: the tests of the mathematics need nothing else."""
    for source in (ROOT / "lastr1").rglob("*.py"):
        target = folder / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def run_tests(tests: Iterable[str], folder: str) -> int:
    """pytest's exit code, in this process, with the package in `folder` first on the path."""
    sys.path.insert(0, folder)
    os.chdir(ROOT)
    # Where a test fails, pytest itself leaves a folder's listing open, and would end with that warning.
    quiet = ["-p", "no:cacheprovider", "-W", "ignore::ResourceWarning"]
    arguments = ["-x", "-q", "-m", "not slow", *quiet, "--assert=plain", "--tb=line", *tests]
    with (Path(folder) / "log").open("w") as log, redirect_stdout(log), redirect_stderr(log):
        code = int(pytest.main(arguments))
    imported = Path(importlib.import_module("lastr1").__file__ or "")
    assert imported.is_relative_to(folder), f"tested {imported}, not the copy"
    return code


def verdict(mutant: Mutant) -> str:
    """`caught`, or what went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        copy_package(Path(folder))
        path = Path(folder) / "lastr1" / mutant.file
        text = path.read_text()
        if text.count(mutant.old) != 1:
            return f"OUTDATED: old text found {text.count(mutant.old)} times"
        path.write_text(text.replace(mutant.old, mutant.new))
        code = run_tests(TESTS[mutant.file], folder)
        if code == FAILED:
            return "caught"
        return "SURVIVED" if code == OK else f"BROKEN: pytest ended with {code}"


def baseline(file: str) -> int:
    """Exit code of the tests of `file` without a fault."""
    with tempfile.TemporaryDirectory() as folder:
        copy_package(Path(folder))
        return run_tests(TESTS[file], folder)


def apart(check: Callable[[T], R], given: T) -> R:
    """What `check` returns in a forked process of its own, which may have children (a Pool's may not).

    torch is imported once here, the package under test only there.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as process:
        return process.submit(check, given).result()


def main(words: list[str]) -> int:
    """The exit code; one line per fault."""
    start = time.perf_counter()
    absent = {file for file, tests in TESTS.items() if not all((ROOT / test).exists() for test in tests)}
    for file in sorted(absent):
        print(f"left out {file}: no {' '.join(TESTS[file])} yet")
    chosen = [m for m in MUTANTS if not words or any(w in m.name or w in m.file for w in words)]
    chosen = [m for m in chosen if m.file not in absent]
    for module in (
        "transformers.models.qwen3_vl.modeling_qwen3_vl",
        "torch.testing",
        "torch.distributions",
        "jaxtyping",
        "hypothesis.strategies",
        "numpy",
    ):
        importlib.import_module(module)
    bad = 0
    with ThreadPoolExecutor(2) as pool:
        files = sorted({m.file for m in chosen})
        for file, code in zip(files, pool.map(partial(apart, baseline), files), strict=True):
            if code != OK:
                print(f"{file}: its tests fail without a fault (pytest ended with {code})")
                return 1
        for mutant, result in zip(chosen, pool.map(partial(apart, verdict), chosen), strict=True):
            bad += result != "caught"
            print(f"{result:9} {mutant.file:20} {mutant.name}", flush=True)
    print(f"{len(chosen) - bad} of {len(chosen)} faults caught in {time.perf_counter() - start:.0f} s")
    return int(bad > 0)


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.exit(main(sys.argv[1:]))
