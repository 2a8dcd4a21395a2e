"""The hand of the scripted experts on robosuite: a servo of the gripper towards a pose.

A skill is a generator: it reads the scene, yields the next action in the policy's own convention (gripper 1 =
open, shape [7]) and is resumed when that control step has been played.  m, rad.
"""

from collections.abc import Callable, Generator

import numpy as np

from lastr1.envs.libero_geometry import Points, Scene, rotation_vector
from lastr1.types import Floats

OPEN, CLOSED = 1.0, 0.0
SLEW = 0.3  # largest change of an action entry from one control step to the next
REACH, TURN = 0.05, 0.5  # what an action of 1 asks of the controller: m and rad
UP = np.array([0.0, 0.0, 1.0])
STALL = 6  # control steps without motion after which the hand is taken to be where it can get
GRIP_STEPS = 8  # the fingers need that many control steps from open to closed
Skill = Generator[Floats, None, None]


class Servo:
    """Servo of a gripper towards a pose, in controller units.

    `pose`: where it is now, its grip site [3] and rotation [3, 3].
    """

    def __init__(self, pose: Callable[[], tuple[Points, Points]]) -> None:
        self._pose = pose
        self._last, self._gripper = np.zeros(6), OPEN

    def towards(self, place: Points, rotation: Points, gripper: float, speed: float) -> Floats:
        """The next action towards a pose: what the controller is asked is the pose itself once in reach."""
        at, turned = self._pose()
        move = (place - at) / REACH
        move *= min(1.0, speed / max(float(np.abs(move).max()), 1e-9))
        turn = rotation_vector(rotation @ turned.T) / TURN
        turn *= min(1.0, 1.0 / max(float(np.abs(turn).max()), 1e-9))
        wanted = np.concatenate([move, turn])
        self._last, self._gripper = self._last + np.clip(wanted - self._last, -SLEW, SLEW), gripper
        return np.append(self._last, gripper).astype(np.float32)

    def go(
        self,
        place: Points,
        rotation: Points,
        gripper: float,
        *,
        near: float = 0.008,
        turned: float = 0.1,
        speed: float = 1.0,
        limit: int = 60,
    ) -> Skill:
        """Move until within `near` (m) and `turned` (rad) of the pose, nothing moves, or `limit` steps pass.

        An integral term takes up what friction leaves of the way.
        """
        lean = np.zeros(3)
        trail: list[Points] = []
        for _ in range(limit):
            at, now = self._pose()
            left, skew = place - at, rotation_vector(rotation @ now.T)
            if np.linalg.norm(left) < near and np.linalg.norm(skew) < turned:
                return
            trail.append(np.concatenate([at, 0.1 * skew]))  # 0.1 rad counts as 1 cm
            if len(trail) > STALL and np.linalg.norm(trail[-1] - trail[-1 - STALL]) < 0.003:
                return
            if np.linalg.norm(left) < 0.03:
                lean = np.clip(lean + 0.05 * left, -0.02, 0.02)
            yield self.towards(place + lean, rotation, gripper, speed)

    def squeeze(self, gripper: float, steps: int) -> Skill:
        """Open or close the fingers where the hand is."""
        place, rotation = self._pose()
        for _ in range(steps):
            yield self.towards(place, rotation, gripper, 1.0)

    def stay(self) -> Skill:
        """Where the hand is and as its fingers are, without end."""
        place, rotation = self._pose()
        while True:
            yield self.towards(place, rotation, self._gripper, 1.0)


class Hand(Servo):
    """The hand in a LIBERO scene."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene.hand)
        self.scene = scene
