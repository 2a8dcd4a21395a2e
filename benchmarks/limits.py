"""Adversarial actions against a robot's limits: python -m benchmarks.limits [--actions 1000000].

Twelve attacks take turns; an auditor that shares no code with the limiter looks at every control step of it.
Axes: R arms, A action size.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lastr1.config import RobotConfig
from lastr1.serve.arm import JOINT_HIGH, JOINT_LOW, UPRIGHT
from lastr1.serve.robot import FakeRobot

ONE_ARM = RobotConfig(hosts=("fake",))
TWO_ARMS = RobotConfig(hosts=("left", "right"), bases=((0.0, 0.25, 0.0, 0.0), (0.0, -0.25, 0.0, 0.0)))
BURST = 50  # control steps of one attack
TOLERANCE = 1 + 1e-5  # actions are f32
TRACKING = 0.02  # m and rad between where a tool was told to be and where the joints have it


class ManualClock:
    """Passes as it is told."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def wait_until(self, moment: float) -> None:
        self.time = max(self.time, moment)


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a fake robot really did in N control steps."""

    executed: np.ndarray  # [N, R, 7]
    tools: np.ndarray  # [N, R, 3] m, by the joints
    turns: np.ndarray  # [N, R, 3, 3]
    joints: np.ndarray  # [N, R, 7] rad
    clipped: Counter[str]


def violations(record: Record, config: RobotConfig) -> dict[str, int]:
    """Limit -> control steps that break it, from executed actions and joints alone."""
    limits, rate = config.limits, config.rate
    rest = np.zeros((3, *record.executed.shape[1:]))
    moves = np.concatenate([rest, record.executed])[..., :6]
    found = {}
    for part, kind, bounds in (
        (slice(0, 3), "", (limits.speed, limits.acceleration, limits.jerk)),
        (slice(3, 6), "turn ", (limits.turn_speed, limits.turn_acceleration, limits.turn_jerk)),
    ):
        values = moves[..., part]
        for name, bound in zip(("speed", "acceleration", "jerk"), bounds, strict=True):
            values = values * rate
            found[kind + name] = np.linalg.norm(values, axis=-1) > bound * TOLERANCE
            values = np.diff(values, axis=0)
    places = start(config) + np.cumsum(record.executed[..., :3], axis=0)
    found["workspace"] = (places < np.array(limits.low) - 1e-3) | (places > np.array(limits.high) + 1e-3)
    cosine = (np.einsum("nrij,ij->nr", record.turns, UPRIGHT) - 1) / 2
    found["tilt"] = np.arccos(np.clip(cosine, -1, 1)) > limits.tilt + TRACKING
    found["joint"] = (record.joints < JOINT_LOW) | (record.joints > JOINT_HIGH)
    if len(config.hosts) == 2:
        found["arms"] = gaps(record, config) < limits.apart - TRACKING
    grip = record.executed[..., 6]
    found["gripper range"] = ~((grip >= 0) & (grip <= 1))
    for arm in grip.T:
        turned = np.flatnonzero(np.diff(arm))
        found["gripper pause"] = np.diff(turned) < limits.gripper_pause * rate
    return {name: int(np.sum(broken)) for name, broken in found.items()}


def start(config: RobotConfig) -> np.ndarray:
    return FakeRobot(config, ManualClock()).tools.copy()


def gaps(record: Record, config: RobotConfig) -> np.ndarray:
    """Distance of the two tools by the joints, [N] m."""
    shared = record.tools + np.array(config.bases)[:, :3]
    return np.linalg.norm(shared[:, 0] - shared[:, 1], axis=-1)


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What an attack may look at: the robot, and two sources of chance."""

    robot: FakeRobot
    number: int
    """control steps of the burst so far"""
    rng: np.random.Generator
    burst: np.random.Generator
    """draws the same in every control step of a burst"""

    @property
    def size(self) -> int:
        return len(self.robot.spec.action)

    @property
    def others(self) -> np.ndarray:
        """[R, 3] m: where the other arm's tool is, in the frame of an arm's own base."""
        bases = np.array(self.robot.bases)[:, :3]
        return (self.robot.tools + bases)[::-1] - bases

    def toward(self, goal: np.ndarray, scale: float) -> np.ndarray:
        rows = np.zeros((len(self.robot.tools), 7))
        rows[:, :3] = scale * (goal - self.robot.tools)
        return rows.ravel()


ATTACKS: dict[str, Callable[[Moment], np.ndarray]] = {
    "huge": lambda at: at.rng.choice([-1e30, 1e30], at.size),
    "infinite": lambda at: at.rng.choice([-np.inf, np.inf], at.size),
    "not a number": lambda at: np.where(at.rng.random(at.size) < 0.3, np.nan, 0.01),
    "alternating": lambda at: np.full(at.size, (-1.0) ** at.number),
    "noise": lambda at: at.rng.normal(size=at.size) * 10 ** at.rng.uniform(-3, 1),
    "a corner": lambda at: at.burst.choice([-0.05, 0.05], at.size),
    "a wall": lambda at: 0.02 * np.eye(at.size)[at.burst.integers(at.size)] * at.burst.choice([-1, 1]),
    "spin": lambda at: np.tile([0, 0, 0, 1.0, -1.0, 1.0, 0.5], len(at.robot.tools)),
    "the other arm": lambda at: at.toward(at.others, 10.0),
    "between the arms": lambda at: at.toward((at.robot.tools + at.others) / 2, 1.0),
    "stretch": lambda at: at.toward(np.array([2.0, 0.0, 1.0]), 1.0),
    "tiny": lambda at: at.rng.choice([-1e-30, 1e-30], at.size),
}


def attack(config: RobotConfig, actions: int, seed: int = 0) -> Record:
    """Play so many adversarial actions."""
    clock = ManualClock()
    robot = FakeRobot(config, clock)
    rng, clipped = np.random.default_rng(seed), Counter[str]()
    kinds, kind = list(ATTACKS), ""
    rows: list[tuple[np.ndarray, ...]] = []
    for number in range(actions):
        if number % BURST == 0:
            kind = kinds[int(rng.integers(len(kinds)))]
        burst = np.random.default_rng((seed, number // BURST))
        clock.time += 1 / config.rate
        at = Moment(robot=robot, number=number % BURST, rng=rng, burst=burst)
        wanted = ATTACKS[kind](at).astype(np.float32)
        executed = robot.command(wanted)
        clipped.update(executed.clipped)
        rows.append((executed.action, robot.tools.copy(), robot.turns.copy(), robot.joints.copy()))
    executed_rows, tools, turns, joints = (np.array(column) for column in zip(*rows, strict=True))
    return Record(
        executed=executed_rows.reshape(actions, -1, 7).astype(np.float64),
        tools=tools,
        turns=turns,
        joints=joints,
        clipped=clipped,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--actions", type=int, default=1_000_000)
    total = parser.parse_args().actions
    for name, config in (("one arm", ONE_ARM), ("two arms", TWO_ARMS)):
        began = time.process_time()
        record = attack(config, total // 2)
        micro = (time.process_time() - began) / (total // 2) * 1e6
        found = violations(record, config)
        print(f"{name}: {total // 2} actions, {sum(found.values())} violations {found}; {micro:.0f} us each")
        joints = min((record.joints - JOINT_LOW).min(), (JOINT_HIGH - record.joints).min())
        places = start(config) + np.cumsum(record.executed[..., :3], axis=0)
        lag = np.linalg.norm(places - record.tools, axis=-1)
        print(
            f"  joints kept {joints:.3f} rad from their ends; tools lagged at most {lag.max() * 1000:.1f} mm"
        )
        if len(config.hosts) == 2:
            print(f"  tools came within {gaps(record, config).min() * 1000:.1f} mm of each other")
        print(f"  clipped: {dict(record.clipped)}")


if __name__ == "__main__":
    main()
