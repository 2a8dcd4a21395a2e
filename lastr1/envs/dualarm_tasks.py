"""What two arms are asked to do, what they see and obey, and from where they are looked at."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lastr1.envs.libero_stack import franka_motion, franka_pose
from lastr1.spec import Camera, Dim, RobotSpec

CAMERAS = {"front": "agentview", "left_wrist": "robot0_eye_in_hand", "right_wrist": "robot1_eye_in_hand"}
"""our name -> robosuite's"""


@dataclass(frozen=True, kw_only=True)
class DualTask:
    """One of robosuite's two-arm tasks."""

    name: str
    """of robosuite's environment"""
    instruction: str
    thing: str
    """body that the task is about"""
    eye: tuple[float, float, float]
    """where the front camera stands (m)"""
    target: tuple[float, float, float]
    """what it looks at (m)"""


TASKS = (
    DualTask(
        name="TwoArmLift",
        instruction="lift the pot by its handles with both arms",
        thing="pot_root",
        eye=(0.9, 0.0, 1.45),
        target=(0.0, 0.0, 0.95),
    ),
    DualTask(
        name="TwoArmHandover",
        instruction="hand the hammer over from the left arm to the right arm",
        thing="hammer_root",
        eye=(1.45, 0.0, 1.6),
        target=(0.0, 0.0, 0.92),
    ),
)


def dual_spec(image: int) -> RobotSpec:
    """Two of LIBERO's Franka arms, left and right, each with a camera at its wrist, and one in front; 20 Hz.

    State, per arm: gripper position (m), its rotation as an axis-angle vector (rad, to 2 pi), both in the
    world's frame, and how far the fingers are open.  Action, per arm: as LIBERO's.
    """
    state: list[Dim] = []
    action: list[Dim] = []
    for side in ("left_", "right_"):
        grip = Dim(name=side + "gripper", unit="open fraction", low=0.0, high=1.0)
        state += [*franka_pose(side), grip]
        action += franka_motion(side)
    return RobotSpec(
        name="dualarm_franka",
        cameras=tuple(Camera(name=n, height=image, width=image) for n in CAMERAS),
        state=tuple(state),
        action=tuple(action),
        rate=20.0,
        hold=(*[0.0] * 6, 0.5) * 2,
    )


def looking(task: DualTask) -> NDArray[np.float64]:
    """Rotation (w, x, y, z) of a camera at `eye` that looks at `target`, its right side level."""
    import mujoco

    back = np.subtract(task.eye, task.target)
    back /= np.linalg.norm(back)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    turn = np.empty(4)
    mujoco.mju_mat2Quat(turn, np.column_stack([right, np.cross(back, right), back]).ravel())
    return turn
