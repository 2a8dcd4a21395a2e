"""What the documents promise exists: commands parse, files are there, functions are where they should be."""

import ast
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from lastr1 import cli
from lastr1.presets import RECIPES

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]


def test_the_readme_has_commands():
    found = commands()
    assert {line.split()[0] for line in found} == {"lastr1", "make"}
    assert set(cli.JOBS) <= {line.split()[1] for line in found}


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("lastr1")])
def test_commands_of_the_readme_parse(line: str, monkeypatch: pytest.MonkeyPatch):
    heard: list[object] = []
    quiet = {name: replace(job, run=heard.append) for name, job in cli.JOBS.items()}
    monkeypatch.setattr(cli, "JOBS", quiet)
    arguments = shlex.split(line)[1:]
    if "--help" in arguments:
        with pytest.raises(SystemExit) as end:
            cli.main(arguments)
        assert not end.value.code
    else:
        assert cli.main(arguments) == 0
        assert len(heard) == 1


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("make")])
def test_targets_of_the_readme_exist(line: str):
    assert re.search(rf"^{line.split()[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_every_recipe_is_in_the_readme():
    text = (ROOT / "README.md").read_text()
    assert [name for name in RECIPES if f"`{name}`" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_links_exist(page: Path):
    text = page.read_text()
    links = [page.parent / link for link in re.findall(r"\]\((?!http)([^)#]+)\)", text)]
    paths = [ROOT / path for path in re.findall(r"`((?:lastr1|tests|docs)/[\w/.]+)`", text)]
    assert [str(path) for path in links + paths if not path.exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_functions_are_in_the_named_file(page: Path):
    missing = []
    for path, names in re.findall(r"`(lastr1/[\w/]+\.py)`: ((?:`\w+(?:\(\))?`(?:, )?)+)", page.read_text()):
        defined = _defined(ROOT / path)
        missing += [f"{path}: {n}" for n in re.findall(r"`(\w+)", names) if n not in defined]
    assert missing == []


def _defined(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found
