"""The job `lastr1 drive`: a robot, a policy server, and the control loop between them.  Torch-free."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Literal

import numpy as np

from lastr1.config import Config, DriveConfig, RobotConfig
from lastr1.serve.access import stored_key
from lastr1.serve.client import PolicyClient, PolicyLost
from lastr1.serve.robot import CameraLost, Clock, FakeRobot, Robot, RobotLost
from lastr1.serve.runtime import BackgroundThinker, ControlStep, Driven, Loop, Policy, SystemClock
from lastr1.types import Observation, UserError

RobotKind = Literal["fake", "franka"]
CONNECT_S = 5.0


def drive(config: Config, server: str, kind: RobotKind, out: Path) -> list[str]:
    """Drive a robot with the policy that `server` serves; what happened, a line per episode.

    `out` gets `drive.jsonl` (every control step that was not done as wanted) and, with `drive.record`, the
    episodes as a LeRobotDataset v3 in `out/episodes`.  `UserError`: no server, a policy for another robot, a
    robot that cannot be reached or stands outside of its limits.
    """
    if not config.drive.instruction:
        raise UserError("the policy has to be told what to do: set --drive.instruction TEXT")
    clock = SystemClock()
    robot = make_robot(kind, config.robot, clock)
    try:
        with _connected(server, stored_key(config.serve)) as policy, _terminated_as_interrupted():
            policy.match(robot.spec)
            return _episodes(robot, policy, clock, config.drive, out)
    except RobotLost as error:
        raise UserError(f"the robot stopped: {error}; look at it before you start again") from None
    finally:
        robot.close()


def make_robot(kind: RobotKind, config: RobotConfig, clock: Clock) -> Robot:
    """The robot of a configuration, or a fake one with the same arms and cameras."""
    if kind == "fake":
        return FakeRobot(config, clock)
    from lastr1.serve.franka import FrankaRobot

    return FrankaRobot(config, clock)


@contextmanager
def _connected(server: str, api_key: str) -> Iterator[PolicyClient]:
    try:
        policy = PolicyClient(server, timeout_s=CONNECT_S, api_key=api_key)
    except PolicyLost as error:
        raise UserError(f"no policy server ({error}): start lastr1 serve, or set --server") from None
    with policy:
        yield policy


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM ends like Ctrl-C: with an emergency stop."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _episodes(robot: Robot, policy: Policy, clock: Clock, config: DriveConfig, out: Path) -> list[str]:
    from lastr1.serve.record import Log

    lines: list[str] = []
    with closing(Log(out / "drive.jsonl")) as log:

        def episode(*listeners: Callable[[ControlStep], None]) -> None:
            driven = _one(robot, policy, clock, config, (log.hear, *listeners))
            lines.append(f"episode {len(lines)}: {summary(driven, robot.spec.rate)}")

        if config.record:
            _record(robot, config, out / "episodes", episode)
            return [*lines, f"episodes in {out / 'episodes'}"]
        for _ in range(config.episodes):
            episode()
        return lines


def _record(robot: Robot, config: DriveConfig, folder: Path, episode: Callable[..., None]) -> None:
    """Episodes as a dataset; one that is broken off is left out, and those before it are kept."""
    from lastr1.demos.dataset import Demonstration
    from lastr1.demos.lerobot_writer import write_recording
    from lastr1.serve.record import Recorder

    broken: list[BaseException] = []

    def demonstrations() -> Iterator[Demonstration]:
        for _ in range(config.episodes):
            recorder = Recorder()
            try:
                episode(recorder.hear)
                success = _asked_success()
            except (RobotLost, KeyboardInterrupt) as error:
                broken.append(error)
                return
            if recorder.seen:
                last = _last_look(robot)
                yield recorder.demonstration(last, instruction=config.instruction, success=success)

    try:
        write_recording(
            folder, demonstrations(), spec=robot.spec, tasks=(config.instruction,), images="video"
        )
    finally:
        if broken:
            raise broken[0]


def _one(
    robot: Robot,
    policy: Policy,
    clock: Clock,
    config: DriveConfig,
    listeners: tuple[Callable[[ControlStep], None], ...],
) -> Driven:
    """One episode, with a thinker of its own: what is decided at its end is not played in the next."""

    def listen(step: ControlStep) -> None:
        for hear in listeners:
            hear(step)

    with closing(BackgroundThinker(policy, config.deadline)) as thinker:
        return Loop(robot, thinker, clock, config).run(listen)


def _last_look(robot: Robot) -> Observation | None:
    try:
        return robot.observe()
    except CameraLost:
        return None


def _asked_success() -> bool:
    """Whether the operator says that the task was solved; nobody there to ask: no."""
    return sys.stdin.isatty() and input("solved? [y/N] ").strip().lower() == "y"


def summary(driven: Driven, rate: float) -> str:
    """One line about an episode."""
    p50, p99 = np.quantile(driven.late, [0.5, 0.99]) * 1000
    why = ", ".join(f"{count} {name}" for name, count in driven.why.most_common())
    clipped = ", ".join(f"{count} {name}" for name, count in driven.clipped.most_common()) or "nothing"
    return (
        f"{driven.steps} control steps at {rate:g} Hz (ended by {driven.ending}): {why}; clipped: {clipped}; "
        f"late by p50 {p50:.2f} ms, p99 {p99:.2f} ms, most {max(driven.late) * 1000:.2f} ms; "
        f"{driven.jumps} jumps of the clock{f'; lost: {driven.lost}' if driven.lost else ''}"
    )
