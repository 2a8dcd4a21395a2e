"""What `lastr1 drive` moves: the contract of a robot, and one that needs no hardware.

Axes: R arms, S state size, A = 7 R action size.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lastr1.config import RobotConfig
from lastr1.serve.arm import (
    DRIVEN_HIGH,
    JOINT_HIGH,
    JOINT_LOW,
    READY,
    UPRIGHT,
    damped_inverse,
    forward,
    rotation_vector,
)
from lastr1.serve.limits import MOVES, Executed, Limiter, Mount, Reach, Stance
from lastr1.spec import Camera, Dim, RobotSpec
from lastr1.types import Floats, Image, Observation

POSTURE = 0.05
"""share of the way back to `READY` that the elbow takes in a control step"""


MOTORS = 2.62
"""rad/s that the slowest joints can turn"""


class RobotLost(Exception):
    """The robot obeys no more (connection, reflex, stop button); its own controller has stopped it."""


class CameraLost(Exception):
    """A camera has no fresh frame; the message names it."""


class Clock(Protocol):
    """Time as the control loop sees it; an argument, so that tests decide how it passes."""

    def now(self) -> float:
        """Seconds since some moment; may jump when the machine was suspended."""

    def wait_until(self, moment: float) -> None:
        """Return at `moment` (at once when it has passed)."""


class Robot(Protocol):
    """One or two arms with cameras; its limits are its own, and nobody can go round them."""

    spec: RobotSpec

    def observe(self) -> Observation:
        """What is seen now (without an instruction).  `CameraLost`, `RobotLost`."""

    def command(self, action: Floats) -> Executed:
        """Begin a control step with an action [A]; returns what was left of it.  `RobotLost`."""

    def hold(self) -> Executed:
        """Begin a control step that brakes or stays; grippers keep what they have.  `RobotLost`."""

    def stop(self) -> None:
        """Emergency stop: as fast as the robot can; it takes no command afterwards.  Never raises."""

    def close(self) -> None:
        """Hang up; the robot stays where it is."""


def robot_spec(config: RobotConfig, name: str) -> RobotSpec:
    """Order and units of all that arms of seven joints tell and are told; two arms: left, then right."""
    sides = ("",) if len(config.hosts) == 1 else ("left_", "right_")
    height, width = config.image
    limits, state, action = config.limits, [], []
    reach = tuple(zip("xyz", limits.low, limits.high, strict=True))
    move, turn = limits.speed / config.rate, limits.turn_speed / config.rate
    for side in sides:
        grip = Dim(name=side + "gripper", unit="open fraction", low=0.0, high=1.0, binary=True)
        state += [Dim(name=side + n, unit="m", low=a, high=b) for n, a, b in reach]
        state += [Dim(name=side + n, unit="rad", low=-np.pi, high=np.pi) for n in ("rx", "ry", "rz")]
        state.append(grip)
        joints = zip(JOINT_LOW.tolist(), JOINT_HIGH.tolist(), strict=True)
        state += [
            Dim(name=f"{side}joint{i + 1}", unit="rad", low=a, high=b) for i, (a, b) in enumerate(joints)
        ]
        action += [Dim(name=side + n, unit="m", low=-move, high=move) for n in "xyz"]
        action += [Dim(name=side + n, unit="rad", low=-turn, high=turn) for n in ("rx", "ry", "rz")]
        action.append(grip)
    return RobotSpec(
        name=name,
        cameras=tuple(
            Camera(name=camera.partition("=")[0], height=height, width=width) for camera in config.cameras
        ),
        state=tuple(state),
        action=tuple(action),
        rate=config.rate,
        hold=(*[0.0] * MOVES, 1.0) * len(sides),
    )


def franka_mounts(config: RobotConfig) -> list[Mount]:
    """Bases and joint limits of the arms; clear of where a tool loses a direction."""
    return [Mount(base=base, joint_low=JOINT_LOW, joint_high=DRIVEN_HIGH) for base in config.bases]


class Pace:
    """How many control steps passed without a command."""

    def __init__(self, clock: Clock, rate: float, most: int) -> None:
        """`most`: after so many the arms are at rest anyway."""
        self._clock, self._rate, self._most = clock, rate, most
        self._last = clock.now()

    def missed(self) -> int:
        """Since the last call; 0 when that was about one control step ago, or when the clock went back."""
        now = self._clock.now()
        steps = int((now - self._last) * self._rate - 0.5)
        self._last = now
        return min(self._most, max(0, steps))


@dataclass(frozen=True, kw_only=True)
class Dark:
    """A camera that gives no frames for a while."""

    camera: str
    since: float
    """seconds of the clock"""
    until: float


class FakeRobot:
    """Arms with the kinematics of a Franka that follow every granted move exactly; cameras that draw them."""

    def __init__(self, config: RobotConfig, clock: Clock, *, dark: tuple[Dark, ...] = ()) -> None:
        self.spec = robot_spec(config, "fake" if len(config.hosts) == 1 else "fake_dual")
        self._clock, self._dark, self.bases = clock, dark, config.bases
        arms = len(config.hosts)
        place, upright, jacobian = forward(READY)
        self.joints = np.tile(READY, (arms, 1))
        """[R, 7] rad"""
        self.tools = np.tile(place, (arms, 1))
        """[R, 3] m: where the tools are, by the joints"""
        self.turns = np.tile(upright, (arms, 1, 1))
        self._jacobians = np.tile(jacobian, (arms, 1, 1))
        self._per_move = [damped_inverse(jacobian)] * arms
        self.grippers = np.ones(arms)
        """[R] open fraction"""
        stance = Stance(position=place, rotation=np.eye(3), joints=READY, gripper=1.0)
        mounts = franka_mounts(config)
        self._low = mounts[0].joint_low + config.limits.joint_margin
        self._high = mounts[0].joint_high - config.limits.joint_margin
        self._limiter = Limiter(config.limits, rate=config.rate, mounts=mounts, stances=[stance] * arms)
        self._fastest = MOTORS / config.rate
        self._pace = Pace(clock, config.rate, most=1000)
        self.stopped = False

    def observe(self) -> Observation:
        """Tool poses, grippers, joints, and a view from above."""
        images = {camera.name: self._view(camera) for camera in self.spec.cameras}
        return Observation(images=images, state=self._state(), instruction="")

    def command(self, action: Floats) -> Executed:
        """`RobotLost` after `stop`."""
        if self.stopped:
            raise RobotLost("the emergency stop was pressed")
        for _ in range(self._pace.missed()):
            self._limiter.skip()
            self._follow()
        arms = zip(self.tools, self.joints, self._per_move, strict=True)
        reach = [Reach(position=p, joints=q, per_move=m) for p, q, m in arms]
        executed = self._limiter.clip(action, reach)
        self.grippers = executed.action.reshape(len(self.joints), MOVES + 1)[:, MOVES].astype(np.float64)
        self._follow()
        return executed

    def hold(self) -> Executed:
        """Brake within the limits, then stay."""
        return self.command(self._limiter.still)

    def stop(self) -> None:
        """At rest at once."""
        self.stopped = True

    def close(self) -> None:
        """Nothing to free."""

    def _follow(self) -> None:
        """Move the tools to where they were told to be: one Newton step, with what the last one left over."""
        for arm in range(len(self.joints)):
            left = rotation_vector(self._limiter.rotations[arm] @ UPRIGHT @ self.turns[arm].T)
            missing = np.append(self._limiter.positions[arm] - self.tools[arm], left)
            back = POSTURE * (READY - self.joints[arm])
            back -= self._per_move[arm] @ (self._jacobians[arm] @ back)  # only what the tool does not feel
            after = self.joints[arm] + back
            if np.any((back < 0) & (after < self._low) | (back > 0) & (after > self._high)):
                back[:] = 0  # the elbow never drives a joint to its end: no limiter knows of this motion
            turn = self._per_move[arm] @ missing + back
            self.joints[arm] += np.clip(turn, -self._fastest, self._fastest)
            self.tools[arm], self.turns[arm], self._jacobians[arm] = forward(self.joints[arm])
            self._per_move[arm] = damped_inverse(self._jacobians[arm])

    def _state(self) -> Floats:
        rows = [
            np.concatenate([tool, rotation_vector(turn @ UPRIGHT.T), [gripper], joints])
            for tool, turn, gripper, joints in zip(
                self.tools, self.turns, self.grippers, self.joints, strict=True
            )
        ]
        return np.concatenate(rows).astype(np.float32)

    def _view(self, camera: Camera) -> Image:
        """From above: every tool is a square, as bright as its gripper is open."""
        now = self._clock.now()
        if any(dark.camera == camera.name and dark.since <= now < dark.until for dark in self._dark):
            raise CameraLost(f"camera {camera.name} gives no frames")
        image = np.full((camera.height, camera.width, 3), 40, np.uint8)
        size = np.array([camera.height, camera.width])
        for arm, (tool, base) in enumerate(zip(self.tools, self.bases, strict=True)):
            row, column = np.clip(
                (np.array([0.8, 1.0]) - tool[:2] - base[:2]) / [0.8, 2.0] * size, 0, size - 1
            )
            side = max(1, camera.height // 16)
            patch = image[int(row) : int(row) + side, int(column) : int(column) + side]
            patch[..., arm] = 120 + round(120 * self.grippers[arm])
        return image
