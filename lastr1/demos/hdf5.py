"""LIBERO's own demonstration files (robomimic's layout), and those that OpenVLA's script regenerates.

    data                      attributes bddl_file_name, problem_info, env_args, num_demos, ...
    data/demo_7/actions       [H, 7] f64, the gripper -1 to open, +1 to close
    data/demo_7/states        [H, n] f64, the simulator's state vector before each action
    data/demo_7/obs/...       agentview_rgb [H, h, w, 3] upside down, ee_states [H, 6], gripper_states [H, 2],
                              joint_states [H, 7], eye_in_hand_rgb

In LIBERO's files `obs` was read after each action, in OpenVLA's before it; the joints tell which.
The pictures are small: `rollout.replay` draws them again before anybody is taught with them.
Axes: H control steps, K those that are no no-ops, S state size (8), A action size (7), h, w image size.
"""

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lastr1.demos.dataset import Demonstration
from lastr1.demos.libero_raw import robot_units, without_noops
from lastr1.types import Array, Floats, Start, UserError

SUFFIXES = (".hdf5", ".h5")
CAMERA = "agentview"
ARM = slice(1, 8)  # the arm's joints in a state vector: it begins with the time
AGAIN = "download the file again"


@dataclass(frozen=True, kw_only=True)
class Hdf5Episode:
    """One demonstration in a file."""

    task: int
    """index into `Hdf5Recording.tasks`"""
    file: Path
    name: str
    """for example `demo_7`"""
    start: Start

    def at(self, field: str) -> str:
        """Where a field is, for messages."""
        return f"{self.file}: data/{self.name}/{field}"


@dataclass(frozen=True, kw_only=True)
class Hdf5Recording:
    """One file, or all files of a folder, each of one task."""

    root: Path
    tasks: tuple[str, ...]
    """instructions, as LIBERO's benchmark words them"""
    episodes: tuple[Hdf5Episode, ...]

    def demonstrations(self, episodes: Collection[int] | None = None) -> Iterator[Demonstration]:
        """The given ones (default: all) without their no-ops, pictures as stored but upright.

        `UserError` names the file and the field that is missing or damaged.
        """
        for number, episode in enumerate(self.episodes):
            if episodes is None or number in episodes:
                with _opened(episode.file) as file:
                    yield _read(file, episode, self.tasks[episode.task])

    def all_actions(self) -> Floats:
        """[N, 7] in robot units, no-ops left out."""
        found = []
        for episode in self.episodes:
            with _opened(episode.file) as file:
                raw = _field(file, episode, "actions", (None, 7))
            found.append(robot_units(raw[without_noops(raw)]))
        return np.concatenate(found)


def open_hdf5(path: Path) -> Hdf5Recording:
    """Look into a file, or into every file of a folder.  `UserError` names what is missing or damaged."""
    if not path.exists():
        raise UserError(f"{path} is missing: give a LIBERO file (*_demo.hdf5), or a folder of them")
    files = sorted(f for f in path.iterdir() if f.suffix in SUFFIXES) if path.is_dir() else [path]
    tasks: list[str] = []
    episodes: list[Hdf5Episode] = []
    for file in files:
        with _opened(file) as content:
            data = _data(content, file)
            instruction = _instruction(data, file)
            if instruction not in tasks:
                tasks.append(instruction)
            task = tasks.index(instruction)
            for name in sorted(data, key=lambda name: int(name.removeprefix("demo_"))):
                first = _dataset(content, file, name, "states")[:1]
                if not first.size or not np.isfinite(first).all():
                    raise UserError(f"{file}: data/{name}/states has no finite first state: {AGAIN}")
                start = Start(task=task, placed=tuple(first[0].tolist()))
                episodes.append(Hdf5Episode(task=task, file=file, name=name, start=start))
    return Hdf5Recording(root=path, tasks=tuple(tasks), episodes=tuple(episodes))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        import h5py
    except ImportError:
        raise UserError("h5py is not installed: pip install 'lastr1[libero]'") from None
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError) as error:  # h5py raises either on damage
        raise UserError(f"{path} is damaged or no HDF5 file ({str(error)[:80]}): {AGAIN}") from error


def _data(content: Any, file: Path) -> Any:
    if "data" not in content:
        raise UserError(f"{file}: the group data is missing: give one of LIBERO's demonstration files")
    data = content["data"]
    odd = [name for name in data if not re.fullmatch(r"demo_\d+", name)]
    if odd or not len(data):
        raise UserError(f"{file}: data holds {odd or 'no demonstration'}, demo_0, demo_1, ... are needed")
    return data


def _instruction(data: Any, file: Path) -> str:
    """From the task's name, as LIBERO's benchmark does; `problem_info` words some of them differently."""
    name = file.stem.removesuffix("_demo")  # OpenVLA's script drops the attributes and keeps the file's name
    if "bddl_file_name" in data.attrs:
        name = Path(str(data.attrs["bddl_file_name"])).stem
    return re.sub(r"^[A-Z_]+SCENE\d+_", "", name).replace("_", " ")


def _dataset(content: Any, file: Path, demo: str, field: str) -> Any:
    where = f"data/{demo}/{field}"
    if where not in content:
        raise UserError(f"{file}: {where} is missing: {AGAIN}")
    return content[where]


def _field(content: Any, episode: Hdf5Episode, field: str, shape: tuple[int | None, ...]) -> Array:
    """A field whose shape fits (None: any length)."""
    values = np.asarray(_dataset(content, episode.file, episode.name, field)[()])
    if values.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, values.shape, strict=True)):
        raise UserError(
            f"{episode.at(field)} has the shape {list(values.shape)}, "
            f"{['any' if n is None else n for n in shape]} is needed: {AGAIN}"
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UserError(f"{episode.at(field)} holds values that are not finite: {AGAIN}")
    return values


def _read(content: Any, episode: Hdf5Episode, instruction: str) -> Demonstration:
    raw = _field(content, episode, "actions", (None, 7)).astype(np.float64)
    steps = len(raw)
    kept = without_noops(raw)
    if not len(kept):
        raise UserError(f"{episode.at('actions')} holds no-ops only: leave the file out")
    if np.abs(raw).max() > 1 + 1e-6:
        raise UserError(f"{episode.at('actions')} leave -1..1: another convention than LIBERO's")
    images = _field(content, episode, f"obs/{CAMERA}_rgb", (steps, None, None, 3))
    if images.dtype != np.uint8:
        raise UserError(f"{episode.at(f'obs/{CAMERA}_rgb')} is {images.dtype}, not uint8: {AGAIN}")
    states = np.column_stack(
        [
            _field(content, episode, "obs/ee_states", (steps, 6)),
            _field(content, episode, "obs/gripper_states", (steps, 2)),
        ]
    )
    simulator = _field(content, episode, "states", (steps, None))
    if simulator.shape[1] < ARM.stop:
        raise UserError(f"{episode.at('states')} holds no time and seven joints per step: {AGAIN}")
    late = _observed_after(_field(content, episode, "obs/joint_states", (steps, 7)), simulator)
    seen = np.append(np.maximum(kept - late, 0), steps - 1)  # before each action that is kept, and at the end
    return Demonstration(
        task=episode.task,
        instruction=instruction,
        frames={CAMERA: np.ascontiguousarray(images[seen, ::-1, ::-1])},
        states=states[seen].astype(np.float32),
        actions=robot_units(raw[kept]),
        start=episode.start,
    )


def _observed_after(joints: NDArray[np.float64], simulator: NDArray[np.float64]) -> bool:
    """Whether observation i shows what action i did: the joints [H, 7] are then those of state i + 1."""
    before = np.abs(joints[:-1] - simulator[:-1, ARM]).sum()
    after = np.abs(joints[:-1] - simulator[1:, ARM]).sum()
    return bool(after < before)
