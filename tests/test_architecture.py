"""How the package is cut: imports, torch-free parts, short files, documented knobs, one vocabulary."""

import ast
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "lastr1"
LONGEST = 300
FORBIDDEN = {
    "eos": "stop",
    "horizon": "cap",
    "response": "thought or chunk",
    "responses": "thoughts or chunks",
    "timestep": "control step or decision",
    "timesteps": "control steps or decisions",
    "trajectory": "episode",
    "trajectories": "episodes",
}
"""word -> what this package calls it (docs/GLOSSARY.md)"""
FIXED_BY_OTHERS = {"num_trajectories", "timestep"}
"""names of the released statistics files, and of robosuite's environments"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )


def files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# ------------------------------------------------------------------------------- which way imports point


def test_imports_point_down():
    done = run("-c", "from importlinter.cli import lint_imports_command as main; main()", "--no-cache")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", ["cli", "envs", "envs.worker", "types", "spec", "config", "presets"])
def test_works_without_torch(module: str):
    program = f"import sys, lastr1.{module}; print(*sorted({{'torch', 'transformers'}} & set(sys.modules)))"
    done = run("-c", program)
    assert done.returncode == 0, done.stderr
    assert not done.stdout.strip(), f"lastr1.{module} imports {done.stdout.strip()}"


@pytest.mark.parametrize("module", ["train.jobs", "report.demo", "report.doctor", "report.conventions"])
def test_works_without_extras(module: str):
    """What `pip install lastr1` alone brings is enough for the embedded world."""
    extras = ("mujoco", "robosuite", "libero", "h5py", "peft")
    done = run("-c", f"import sys; sys.modules.update(dict.fromkeys({extras})); import lastr1.{module}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["train", "tabletop", "--help"]])
def test_help_is_quick_and_needs_no_torch(arguments: list[str]):
    program = (
        "import sys\n"
        "from lastr1.cli import main\n"
        "try:\n"
        "    code = main(sys.argv[1:])\n"
        "except SystemExit as end:\n"
        "    code = end.code\n"
        "assert not code, code\n"
        "assert 'torch' not in sys.modules, 'help imports torch'\n"
    )
    before = _processor_seconds()
    done = run("-c", program, *arguments)
    # processor time, not the clock: other work on the machine must not decide
    seconds = _processor_seconds() - before
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
    assert seconds < 1.5


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# ------------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize("path", files("lastr1", "tests", "scripts", "benchmarks", "plugins"), ids=name)
def test_files_are_short(path: Path):
    assert len(path.read_text().splitlines()) <= LONGEST


# ------------------------------------------------------------------------------------------------ knobs


def knobs() -> Iterator[tuple[str, str, bool]]:
    """Class, field and whether a docstring follows it, for every field below config/."""
    for node in (n for path in files("lastr1/config") for n in ast.parse(path.read_text()).body):
        if not isinstance(node, ast.ClassDef):
            continue
        for field, after in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                yield node.name, field.target.id, _is_text(after)


def _is_text(node: ast.stmt | None) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def test_there_are_knobs():
    assert len(list(knobs())) > 50
    assert ("PolicyConfig", "stop_candidates", True) in set(knobs())


def test_every_knob_is_explained():
    # a section of `Config` explains itself in its own class
    bare = [f"{owner}.{knob}" for owner, knob, told in knobs() if not told and owner != "Config"]
    assert bare == []


def test_every_knob_is_used():
    read = set()
    for path in files("lastr1"):
        if path.parent.name != "config" and path.name != "presets.py":
            read |= {n.attr for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Attribute)}
    assert [f"{owner}.{knob}" for owner, knob, _ in knobs() if knob not in read] == []


# ------------------------------------------------------------------------------------------- vocabulary


def defined_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of everything a file defines; what other libraries call their own is theirs."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def words(identifier: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", identifier)]


def test_words_of_an_identifier():
    assert words("max_horizonSteps") == ["max", "horizon", "steps"]
    assert words("EOS_TOKEN") == ["eos", "token"]


@pytest.mark.parametrize("path", files("lastr1"), ids=name)
def test_one_vocabulary(path: Path):
    wrong = [
        f"{name(path)}:{line}: {identifier}: say {FORBIDDEN[word]!r}, not {word!r}"
        for line, identifier in defined_names(ast.parse(path.read_text()))
        if identifier not in FIXED_BY_OTHERS
        for word in words(identifier)
        if word in FORBIDDEN
    ]
    assert wrong == []
