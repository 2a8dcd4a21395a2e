"""Transitions on disk, one file each: what the actor writes and the learner draws from.

    transitions/autonomous/000012_0003.npz      the policy's own
    transitions/intervention/000012_0004.npz    a person's
    transitions/demonstration/000002_0000.npz   a person's before the run; drawn with the interventions

A file appears whole or not at all (written beside its place, flushed, renamed), and the actor has nothing in
memory that is not on disk: whatever moment either process is killed at, no transition is lost.  Files are
read when they are drawn, so that a buffer costs no memory.  No pickle.

Axes: B transitions, C control steps per chunk, A action size, S state size.
"""

import os
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lastr1.model.hub import sync
from lastr1.types import Array, Floats, UserError

FOLDER = "transitions"
STREAMS = {False: "autonomous", True: "intervention"}
"""`is_intervention` -> folder"""
DEMONSTRATIONS = "demonstration"


@dataclass(frozen=True, kw_only=True)
class Transition:
    """One chunk, wholly the policy's or wholly a person's, and what came of it.

    Where a person takes over (or lets go) inside a chunk, the chunk ends and another begins: what a person
    did is never mixed with what the policy did before, so that cloning does not imitate the mistake that was
    being corrected.  (ALGORITHM.md 9 would record the whole chunk as intervened.)
    """

    instruction: str
    task: int
    pixels: Array
    """uint8 [cameras, h, w, 3] before it, as the policy sees it"""
    state: Floats
    """[S]"""
    actions: Floats
    """[C, A] executed, robot units; 0 past `steps`"""
    steps: int
    """control steps executed, 1..C"""
    reward: float
    """summed over them"""
    terminated: bool
    """the operator confirmed success, or gave the episode up"""
    truncated: bool
    """the step cap was reached"""
    success: bool
    next_pixels: Array
    next_state: Floats
    is_intervention: bool
    """LeRobot's flag: a person had the controls"""
    teleop_action: Floats
    """[C, A] LeRobot's name: `actions` where a person had the controls, otherwise 0"""
    takeover: bool
    """the first chunk since a person took the controls"""
    version: int
    """updates behind the weights that played it"""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a transition stands in its run."""

    episode: int
    index: int

    @property
    def name(self) -> str:
        """File name."""
        return f"{self.episode:06}_{self.index:04}.npz"


def write_transition(root: Path, place: Place, row: Transition) -> Path:
    """Add one to its stream below `root`."""
    return write_into(root / FOLDER / STREAMS[row.is_intervention], place, row)


def write_into(folder: Path, place: Place, row: Transition) -> Path:
    """Add one to a folder, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path, temporary = folder / place.name, folder / f".{place.name}"
    with temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **{name: np.asarray(value) for name, value in vars(row).items()})
    sync(temporary)
    os.replace(temporary, path)
    return path


def read_transition(path: Path) -> Transition:
    """`UserError` when the file is damaged; `FileNotFoundError` when its episode was discarded."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            values = {f.name: stored[f.name] for f in fields(Transition)}
    except (EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged ({error}): delete it, and go on with --resume") from None
    plain = {k: v.item() if v.ndim == 0 else v for k, v in values.items()}
    return Transition(**plain)


def discard_episode(root: Path, episode: int) -> None:
    """Forget what an operator does not want to be learnt from."""
    for folder in STREAMS.values():
        for path in (root / FOLDER / folder).glob(f"{episode:06}_*.npz"):
            path.unlink()


def next_episode(root: Path) -> int:
    """Number of the episode after the newest one on disk."""
    found = [int(p.name[:6]) for folder in STREAMS.values() for p in (root / FOLDER / folder).glob("*.npz")]
    return max(found, default=-1) + 1


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B transitions side by side."""

    instructions: list[str]
    pixels: Array
    """uint8 [B, cameras, h, w, 3]"""
    next_pixels: Array
    actions: Floats
    """[B, C, A]"""
    steps: NDArray[np.int64]
    """[B]"""
    reward: Floats
    """[B]"""
    terminated: NDArray[np.bool_]
    """[B]"""
    is_intervention: NDArray[np.bool_]
    """[B]"""

    @staticmethod
    def stack(rows: Sequence[Transition]) -> "Batch":
        """In the given order."""
        return Batch(
            instructions=[row.instruction for row in rows],
            pixels=np.stack([row.pixels for row in rows]),
            next_pixels=np.stack([row.next_pixels for row in rows]),
            actions=np.stack([row.actions for row in rows]),
            steps=np.array([row.steps for row in rows]),
            reward=np.array([row.reward for row in rows], dtype=np.float32),
            terminated=np.array([row.terminated for row in rows]),
            is_intervention=np.array([row.is_intervention for row in rows]),
        )


class Buffers:
    """All streams of a run, as the learner sees them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.streams: dict[str, list[Path]] = {folder: [] for folder in (*STREAMS.values(), DEMONSTRATIONS)}

    def refresh(self) -> list[Path]:
        """Look at the disk again; the files of the run that were not there before, oldest first."""
        new: list[Path] = []
        for folder, paths in self.streams.items():
            known = set(paths)
            self.streams[folder] = sorted((self.root / FOLDER / folder).glob("[0-9]*.npz"))
            if folder != DEMONSTRATIONS:
                new += [path for path in self.streams[folder] if path not in known]
        return sorted(new, key=lambda path: path.name)

    def __len__(self) -> int:
        """Transitions played in the run."""
        return sum(len(self.streams[folder]) for folder in STREAMS.values())

    def draw(self, count: int, rng: np.random.Generator) -> Batch:
        """`count` of the policy's own and `count` of a person's, with replacement.

        Of a person's, interventions and demonstrations are drawn equally often, however many there are: the
        few interventions show what the policy gets wrong, and would drown among demonstrations.  An empty
        stream gives none.
        """
        own, person = STREAMS.values()
        rows: list[Transition] = []
        for folders in ((own,), (person, DEMONSTRATIONS)):
            rows += [row for _ in range(count) if (row := self._one(folders, rng)) is not None]
        return Batch.stack(rows)

    def _one(self, folders: tuple[str, ...], rng: np.random.Generator) -> Transition | None:
        while filled := [paths for folder in folders if (paths := self.streams[folder])]:
            paths = filled[int(rng.integers(len(filled)))]
            path = paths[int(rng.integers(len(paths)))]
            try:
                return read_transition(path)
            except FileNotFoundError:  # its episode was discarded a moment ago
                paths.remove(path)
        return None


def read_all(paths: Iterable[Path]) -> list[tuple[int, Transition]]:
    """Episode and transition of files that may be gone by now."""
    found = []
    for path in paths:
        try:
            found.append((int(path.name[:6]), read_transition(path)))
        except FileNotFoundError:
            continue
    return found
