"""What demonstrations can be read from, behind one interface, and whose tasks they show.

Axes: N control steps of all episodes, A action size.
"""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from lastr1.demos.dataset import Demonstration
from lastr1.demos.hdf5 import SUFFIXES, open_hdf5
from lastr1.demos.lerobot import Dataset, open_recording
from lastr1.demos.libero_raw import as_libero
from lastr1.spec import RobotSpec
from lastr1.types import Floats, Start, UserError


class Episode(Protocol):
    """One recorded episode."""

    @property
    def task(self) -> int:
        """Index into `Source.tasks`."""

    @property
    def start(self) -> Start | None:
        """Where it began, if that was recorded; its task is an index into `Source.tasks`."""


class Source(Protocol):
    """A recording that has been opened; frames are only read while iterating over `demonstrations`."""

    @property
    def root(self) -> Path:
        """File or folder."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Instructions."""

    @property
    def episodes(self) -> Sequence[Episode]:
        """All of them."""

    def demonstrations(self, episodes: Collection[int] | None = None) -> Iterator[Demonstration]:
        """The given episodes (default: all), one at a time in memory.  `UserError` names what is damaged."""

    def all_actions(self) -> Floats:
        """[N, A] in robot units."""


def is_hdf5(path: Path) -> bool:
    """Whether these are LIBERO's own files: they must be played again before they can teach."""
    return path.suffix in SUFFIXES or (path.is_dir() and any(f.suffix in SUFFIXES for f in path.iterdir()))


def open_source(path: Path) -> Source:
    """LIBERO's HDF5 file (or a folder of them), or the folder of a LeRobotDataset v3."""
    return open_hdf5(path) if is_hdf5(path) else open_recording(path)


def fitting(data: Dataset, spec: RobotSpec, suite: str) -> Source:
    """A LeRobotDataset of this robot: ours as it is, a public one of LIBERO in our conventions."""
    wrong = data.robot.mismatches(spec)
    if suite.startswith("libero") and (wrong or data.robot.name != spec.name):
        return as_libero(data, spec)  # names may fit by chance: only ours say what a gripper's numbers mean
    if not wrong:
        return data
    raise UserError(f"{data.root} does not fit {suite}: {'; '.join(wrong)}")


def matching_tasks(
    source: Source,
    tasks: tuple[str, ...],
    suite: str,
    chosen: Sequence[int] | None = None,
    *,
    replayed: bool = True,
) -> dict[int, int]:
    """Task of the source -> task of the environment with the same instruction, among the `chosen` ones.

    `UserError`: none is shared; or several tasks have the instruction (libero_90 gives it in several scenes)
    and the episodes are to be `replayed`, for which the scene must be known.  Who only learns from them takes
    the first: neither the words nor the source tell those tasks apart.
    """
    among = range(len(tasks)) if chosen is None else chosen
    wanted = [plain(tasks[task]) for task in among]
    found = {i: wanted.index(plain(t)) for i, t in enumerate(source.tasks) if plain(t) in wanted}
    if not found and chosen is not None:
        raise UserError(f"{source.root} has no demonstration of task {among[0]}: choose other --env.tasks")
    if not found:
        raise UserError(f"{source.root} shows no task of {suite} (but {source.tasks[0]!r}): name its recipe")
    for at in found.values():
        if replayed and wanted.count(wanted[at]) > 1:
            raise UserError(
                f"{suite} has several tasks {tasks[among[at]]!r}: choose a suite or --env.tasks with one"
            )
    return {i: among[at] for i, at in found.items()}


def plain(instruction: str) -> str:
    """As instructions are compared: without case, final stop and extra spaces."""
    return " ".join(instruction.lower().rstrip(".").split())
