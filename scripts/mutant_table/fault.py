"""One planted fault."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """`old` occurs exactly once in the file and is replaced by `new`."""

    name: str
    file: str
    old: str
    new: str


def faults(file: str, *rows: tuple[str, str, str]) -> list[Mutant]:
    """Name, old and new text of every fault in a file of the package."""
    return [Mutant(name, file, old, new) for name, old, new in rows]
