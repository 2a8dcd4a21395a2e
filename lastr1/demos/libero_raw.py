"""LIBERO's demonstrations in their own convention, and as the public LeRobot datasets carry them.

The teleoperated actions are increments in the controller's units and a gripper command, -1 to open and +1 to
close; ours is the fraction it is open (ALGORITHM.md 6.1).  Pictures of the stack are upside down; every
public dataset has turned them by 180 degrees, LIBERO's own files have not.
Axes: H control steps of a demonstration, N control steps of all demonstrations, A action size (7), S (8).
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lastr1.demos.dataset import Demonstration
from lastr1.demos.lerobot import Dataset, RecordedEpisode
from lastr1.spec import RobotSpec
from lastr1.types import Array, Floats, UserError

GRIPPER = 6
STILL = 1e-4
"""norm of a motion that is none"""
CAMERAS = ("image", "agentview", "agentview_rgb", "agentview_image")
"""names that LeRobot datasets of LIBERO give to the agent view"""
RATES = (10.0, 20.0)
"""LIBERO runs at 20 Hz; openpi's converter wrote 10 and left every control step in (so did who used it)"""
SLACK = 1e-3


def open_fraction(command: Array) -> Floats:
    """LIBERO's gripper command (-1 opens, +1 closes) -> 1 open, 0 closed."""
    return (1.0 - np.clip(command, 0.0, 1.0)).astype(np.float32)


def robot_units(raw: Array) -> Floats:
    """LIBERO's raw actions [H, 7] -> ours: the gripper's command becomes an open fraction."""
    return np.column_stack([raw[:, :GRIPPER].astype(np.float32), open_fraction(raw[:, GRIPPER])])


def without_noops(actions: NDArray[np.float64]) -> NDArray[np.int64]:
    """Positions of the raw actions [H, 7] that move the arm, or change the gripper (the first: move the arm).

    As in OpenVLA's regenerated LIBERO: the gripper is compared with that of the last action that was kept.
    """
    kept: list[int] = []
    for step, action in enumerate(actions):
        still = float(np.linalg.norm(action[:GRIPPER])) < STILL
        if not still or (kept and action[GRIPPER] != actions[kept[-1], GRIPPER]):
            kept.append(step)
    return np.array(kept, np.int64)


def fingers_disagree(labels: Floats, states: Floats) -> bool:
    """Whether the fingers are wider apart where the labels [N] (1 open) say closed; states [N, 8] follow."""
    width, opened = states[:, -2] - states[:, -1], labels > 0.5
    if opened.all() or not opened.any():
        return False
    return bool(width[opened].mean() <= width[~opened].mean())


@dataclass(frozen=True, kw_only=True)
class PublicLibero:
    """A LeRobotDataset of LIBERO as downloaded, read in our conventions."""

    data: Dataset
    camera: str
    """the agent view in `data`"""
    ours: str
    """and in the environment"""
    commands: bool
    """its gripper is LIBERO's own command, not an open fraction"""

    @property
    def root(self) -> Path:
        """Folder."""
        return self.data.root

    @property
    def tasks(self) -> tuple[str, ...]:
        """Instructions, of every suite in it."""
        return self.data.tasks

    @property
    def episodes(self) -> Sequence[RecordedEpisode]:
        """All of them."""
        return self.data.episodes

    def demonstrations(self, episodes: Collection[int] | None = None) -> Iterator[Demonstration]:
        """The given episodes (default: all), as `Dataset.demonstrations`."""
        for demo in self.data.demonstrations(episodes):
            frames = {self.ours: demo.frames[self.camera]}
            yield replace(demo, frames=frames, actions=self._ours(demo.actions))

    def all_actions(self) -> Floats:
        """[N, 7] in robot units."""
        return self._ours(self.data.all_actions())

    def _ours(self, actions: Floats) -> Floats:
        return robot_units(actions) if self.commands else actions


def as_libero(data: Dataset, spec: RobotSpec) -> PublicLibero:
    """A dataset such as `HuggingFaceVLA/libero` for LIBERO's robot.

    Accepted: the agent view (`CAMERAS`) at the recipe's size, 10 or 20 frames per second, a state of gripper
    pose and fingers [8], actions [7] in -1..1 with a gripper that is LIBERO's command or an open fraction.
    `UserError` lists everything else, and a gripper that disagrees with the fingers.
    """
    (wanted,) = spec.cameras
    robot, wrong = data.robot, []
    names = [camera.name for camera in robot.cameras]
    name = next((name for name in CAMERAS if name in names), "")
    if not name:
        wrong.append(f"cameras {names}: the agent view must be called {' or '.join(CAMERAS[:2])}")
    else:
        camera = robot.cameras[names.index(name)]
        if (camera.height, camera.width) != (wanted.height, wanted.width):
            size = f"{camera.height} x {camera.width} pixels, the recipe wants {wanted.height}"
            wrong.append(f"camera {name}: {size} (--env.image {camera.height})")
    if robot.rate not in RATES:
        wrong.append(f"fps {robot.rate:g}: LIBERO's control steps are recorded as 20 (or, by openpi, as 10)")
    if (len(robot.state), len(robot.action)) != (len(spec.state), len(spec.action)):
        wrong.append(f"state [{len(robot.state)}] and action [{len(robot.action)}]: [8] and [7] are needed")
    if wrong:
        raise UserError(f"{data.root} does not fit LIBERO's robot: {'; '.join(wrong)}")
    view = replace(
        data,
        robot=replace(robot, cameras=(robot.cameras[names.index(name)],)),
        features={name: data.features[name]},
    )
    return _checked(view, spec, name, wanted.name)


def _checked(data: Dataset, spec: RobotSpec, camera: str, ours: str) -> PublicLibero:
    """What only the numbers can tell."""
    actions, states = data.all_actions(), data.all_states()
    for key, values, dims in (("state", states, spec.state), ("action", actions, spec.action)):
        limits = [(-1.0, 1.0) if dim.binary else (dim.low, dim.high) for dim in dims]
        for column, (low, high), dim in zip(values.T, limits, dims, strict=True):
            if column.min() < low - SLACK or column.max() > high + SLACK:
                raise UserError(
                    f"{data.root}: {data.vectors[key]} {dim.name} runs from {column.min():.3g} to "
                    f"{column.max():.3g} {dim.unit}, not within {low:g}..{high:g} as LIBERO's do"
                )
    public = PublicLibero(data=data, camera=camera, ours=ours, commands=bool(actions[:, GRIPPER].min() < 0))
    # One row later the fingers have begun to follow; the few rows that meet another episode do not matter.
    if fingers_disagree(public._ours(actions)[:-1, GRIPPER], states[1:]):
        kind = "-1 opens, +1 closes" if public.commands else "1 is open, 0 closed"
        raise UserError(
            f"{data.root}: the gripper of {data.vectors['action']} is flipped: the fingers close where it "
            f"says open (expected: {kind})"
        )
    return public
