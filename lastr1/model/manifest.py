"""What a checkpoint has to be: `manifest.json` names every file of its folder, with size and SHA-256."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from lastr1.model.hub import read_json, understood, write_json
from lastr1.types import UserError

NAME = "manifest.json"
QUICK = 1 << 30
"""bytes up to which a file is hashed whenever a policy is opened (a second or so); of larger ones the size is
compared, and the hash where a run is resumed or an evaluation signed, which read every byte anyway"""
_FOR_PEOPLE = ("README.md", NAME)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(directory: Path, score: float | None = None) -> None:
    """List what is in a folder; `score` says how good its policy is, if that is known."""
    paths = sorted(p for p in directory.iterdir() if p.name not in _FOR_PEOPLE)
    files = {p.name: {"bytes": p.stat().st_size, "sha256": digest(p)} for p in paths}
    write_json(directory / NAME, {"score": score, "files": files})


def damage(directory: Path, limit: float = float("inf")) -> str:
    """The first file that is not what the manifest says; empty if all are, or if there is no manifest.

    Files of more than `limit` bytes are not hashed.
    """
    if not (directory / NAME).is_file():
        return ""
    try:
        listed = _files(directory)
    except UserError:
        return NAME
    for name, (size, sha256) in listed.items():
        path = directory / name
        if not path.is_file() or path.stat().st_size != size:
            return name
        if size <= limit and digest(path) != sha256:
            return name
    return ""


def check(directory: Path, limit: float = float("inf")) -> None:
    """`UserError` naming the file that is damaged or missing."""
    name = damage(directory, limit)
    if name:
        raise _damaged(directory, name)


def hashes(directory: Path, names: Sequence[str]) -> dict[str, str]:
    """SHA-256 of the named files, of whatever size.  `UserError` where the manifest says otherwise."""
    found = {name: digest(directory / name) for name in names}
    listed = _files(directory) if (directory / NAME).is_file() else {}
    for name in found.keys() & listed.keys():
        if found[name] != listed[name][1]:
            raise _damaged(directory, name)
    return found


def _damaged(directory: Path, name: str) -> UserError:
    return UserError(
        f"{directory / name} is damaged or was edited ({NAME} says otherwise): use another one, or delete "
        f"{NAME} if the edit is yours"
    )


def score(directory: Path) -> float | None:
    """How good the policy is, if the manifest says it."""
    if not (directory / NAME).is_file():
        return None
    facts = read_json(directory, NAME)
    with understood(directory / NAME):
        return None if facts["score"] is None else float(facts["score"])


def _files(directory: Path) -> dict[str, tuple[int, str]]:
    facts = read_json(directory, NAME)
    with understood(directory / NAME):
        return {str(name): (int(f["bytes"]), str(f["sha256"])) for name, f in facts["files"].items()}
