"""One or two Franka arms through franky (franky-control 2.0.0); the only file that knows it.

Every control step sends an absolute target pose; franky's own planner (Ruckig, 1 kHz) moves there and stops
there when nothing follows, so that a runtime that dies leaves the arm where its limiter has granted it to be.
Relative motions in quick succession make that planner give up ("Motion planner failed"): not used.
"""

import contextlib
import threading

import numpy as np
from numpy.typing import ArrayLike

try:
    import franky
except ImportError as error:
    from lastr1.types import UserError

    raise UserError(f"franky is not there ({error}): pip install 'lastr1[franka]', or --robot fake") from None

from lastr1.config import RobotConfig
from lastr1.serve.arm import damped_inverse, rotation_vector
from lastr1.serve.cameras import open_cameras
from lastr1.serve.limits import MOVES, PER_ARM, Executed, Limiter, Reach, Stance
from lastr1.serve.robot import Clock, Pace, RobotLost, franka_mounts, robot_spec
from lastr1.types import Floats, Observation, UserError

_FAULTS = (franky.Exception, RuntimeError)
"""what franky raises when an arm or the way to it fails"""
_OUT_OF_ORDER = (franky.RobotMode.Reflex, franky.RobotMode.UserStopped, franky.RobotMode.Other)
_TOOL_UPRIGHT = np.diag([1.0, -1.0, -1.0])
"""[3, 3] orientation of Franka's end effector when it points straight down"""
_LOOK_S = 0.05
_ROOM = 2.0
"""the planner's own limits are this many times ours: it has to catch up, and is a second line of defence"""


class FrankaRobot:
    """Arms, grippers and cameras of one station."""

    def __init__(self, config: RobotConfig, clock: Clock) -> None:
        """`UserError` when an arm or a camera cannot be reached, or an arm stands outside of its limits."""
        arms = len(config.hosts)
        self.spec = robot_spec(config, "franka" if arms == 1 else "franka_dual")
        self._pace = Pace(clock, config.rate, most=1000)
        self._cameras = open_cameras(config, clock)
        self._arms = [_connect(host, config) for host in config.hosts]
        self._grippers = [_Gripper(host, config) for host in config.hosts]
        stances = []
        for arm, gripper in zip(self._arms, self._grippers, strict=True):
            state = arm.state
            stances.append(
                Stance(
                    position=np.array(state.O_T_EE.translation),
                    rotation=np.array(state.O_T_EE.matrix)[:3, :3] @ _TOOL_UPRIGHT.T,
                    joints=np.array(state.q),
                    gripper=gripper.opened,
                )
            )
        self._limiter = Limiter(
            config.limits, rate=config.rate, mounts=franka_mounts(config), stances=stances
        )
        self._stopped = False

    def observe(self) -> Observation:
        """Measured tool poses, grippers and joints; the newest frame of every camera."""
        rows: list[ArrayLike] = []
        for number, (arm, gripper) in enumerate(zip(self._arms, self._grippers, strict=True)):
            state = self._state(number, arm)
            turn = rotation_vector(np.array(state.O_T_EE.matrix)[:3, :3] @ _TOOL_UPRIGHT.T)
            rows += [np.array(state.O_T_EE.translation), turn, [gripper.opened], np.array(state.q)]
        return Observation(
            images={name: camera.look() for name, camera in self._cameras.items()},
            state=np.concatenate([np.ravel(row) for row in rows]).astype(np.float32),
            instruction="",
        )

    def command(self, action: Floats) -> Executed:
        """Send every arm to where the limiter lets it; the grippers follow in threads of their own."""
        if self._stopped:
            raise RobotLost("the emergency stop was pressed")
        for _ in range(self._pace.missed()):
            self._limiter.skip()
        executed = self._limiter.clip(action, [self._reach(n, arm) for n, arm in enumerate(self._arms)])
        targets = zip(self._arms, self._limiter.positions, self._limiter.rotations, strict=True)
        for number, (arm, position, rotation) in enumerate(targets):
            pose = np.eye(4)
            pose[:3, :3], pose[:3, 3] = rotation @ _TOOL_UPRIGHT, position
            try:
                arm.move(franky.CartesianMotion(franky.Affine(pose)), asynchronous=True)
            except _FAULTS as error:
                raise RobotLost(f"arm {number} does not obey ({error})") from None
        for gripper, opened in zip(self._grippers, executed.action[MOVES::PER_ARM], strict=True):
            gripper.wanted = float(opened)
        return executed

    def hold(self) -> Executed:
        """Brake within the limits, then stay."""
        return self.command(self._limiter.still)

    def stop(self) -> None:
        """Every arm brakes as fast as it may; one that cannot be reached any more has stopped by itself."""
        self._stopped = True
        for arm in self._arms:
            with contextlib.suppress(*_FAULTS):
                arm.stop()

    def close(self) -> None:
        """Hang up; arms stay at their last target."""
        for part in (*self._grippers, *self._cameras.values()):
            part.close()

    def _state(self, number: int, arm: "franky.Robot") -> "franky.RobotState":
        try:
            state = arm.state
        except _FAULTS as error:
            raise RobotLost(f"arm {number} does not answer ({error})") from None
        if state.robot_mode in _OUT_OF_ORDER:
            raise RobotLost(f"arm {number} is in mode {state.robot_mode.name} ({state.last_motion_errors})")
        return state

    def _reach(self, number: int, arm: "franky.Robot") -> Reach:
        state = self._state(number, arm)
        jacobian = arm.model.zero_jacobian(franky.Frame.EndEffector, state)
        return Reach(
            position=np.array(state.O_T_EE.translation),
            joints=np.array(state.q),
            per_move=damped_inverse(np.array(jacobian)),
        )


def _connect(host: str, config: RobotConfig) -> "franky.Robot":
    realtime = franky.RealtimeConfig.Enforce if config.realtime else franky.RealtimeConfig.Ignore
    try:
        arm = franky.Robot(host, realtime_config=realtime)
    except _FAULTS as error:
        raise UserError(
            f"no Franka arm at {host} ({error}): set robot.hosts; brakes open, FCI active, and "
            "--robot.no-realtime on a kernel without real-time priorities"
        ) from None
    limits = config.limits
    for limit, ours in (
        (arm.translation_velocity_limit, limits.speed),
        (arm.translation_acceleration_limit, limits.acceleration),
        (arm.rotation_velocity_limit, limits.turn_speed),
        (arm.rotation_acceleration_limit, limits.turn_acceleration),
    ):
        limit.set(min(limit.max, _ROOM * ours))
    return arm


class _Gripper:
    """A hand in a thread of its own: its calls take up to seconds, the control loop has milliseconds."""

    def __init__(self, host: str, config: RobotConfig) -> None:
        try:
            self._hand = franky.Gripper(host)
            self._widest = self._hand.max_width
            self.opened = self._hand.width / self._widest
        except _FAULTS as error:
            raise UserError(f"no gripper at {host} ({error}): switch it on, and home it in Desk") from None
        self._speed, self._force = config.gripper_speed, config.gripper_force
        self.wanted = self._told = self.opened
        """open fractions"""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"gripper {host}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let the thread end; the hand keeps what it holds."""
        self._closing.set()
        self._thread.join(2.0)

    def _run(self) -> None:
        moving = None
        while not self._closing.wait(_LOOK_S):
            try:
                self.opened = self._hand.width / self._widest
                wanted = self.wanted
                if wanted != self._told and (moving is None or moving.wait(0.0)):
                    moving = self._tell(wanted)
                    self._told = wanted
            except _FAULTS:
                moving = None  # tried again; an arm that is gone is noticed by the control loop

    def _tell(self, opened: float) -> "franky.BoolFuture":
        """Grasp whatever is between the fingers, or move them apart."""
        if opened < 0.5:
            return self._hand.grasp_async(0.0, self._speed, self._force, self._widest, self._widest)
        return self._hand.move_async(opened * self._widest, self._speed)
