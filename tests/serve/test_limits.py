"""No action, however mad, takes a robot out of its limits; ordinary ones pass as they are."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lastr1.config import LimitsConfig
from lastr1.serve.arm import JOINT_HIGH, JOINT_LOW, READY, forward, rotation_vector, turned
from lastr1.serve.limits import Limiter, Mount, Reach, Stance
from lastr1.serve.robot import FakeRobot
from lastr1.types import UserError

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks.limits import ATTACKS, ONE_ARM, TWO_ARMS, ManualClock, attack, violations

HERE = np.array([0.5, 0.0, 0.3])
STILL, ZERO = np.zeros((7, 6)), np.zeros(7)
DT = 0.05


def limiter(position=HERE, **knobs):
    mount = Mount(base=(0.0, 0.0, 0.0, 0.0), joint_low=np.full(7, -1.0), joint_high=np.full(7, 1.0))
    stance = Stance(position=position, rotation=np.eye(3), joints=np.zeros(7), gripper=1.0)
    return Limiter(LimitsConfig(**knobs), rate=1 / DT, mounts=[mount], stances=[stance])


def played(arm, wanted, joints=ZERO, per_move=STILL):
    """An arm that is where it was told to be."""
    return arm.clip(wanted, [Reach(position=arm.positions[0], joints=joints, per_move=per_move)])


def action(x=0.0, y=0.0, z=0.0, rx=0.0, ry=0.0, rz=0.0, gripper=1.0):
    return np.array([x, y, z, rx, ry, rz, gripper], np.float32)


def test_ordinary_actions_pass_bit_for_bit():
    arm = limiter()
    for x in (0.003, 0.01, 0.015, 0.012, 0.005, -0.004):
        wanted = action(x, 0.5 * x, 0.001, rz=x, gripper=0.0)
        executed = played(arm, wanted)
        assert executed.action.tobytes() == wanted.tobytes()
        assert executed.clipped == ()


def test_speed_acceleration_and_jerk_by_hand():
    """Jerk 100 m/s^3 at 20 Hz allows 100 * 0.05^3 = 12.5 mm more per control step and control step.

    From rest: 12.5 mm; acceleration 5 m/s^2 allows 5 * 0.05^2 = 12.5 mm more per control step, too: 25 mm
    next; that is the speed limit, 0.5 * 0.05.
    """
    arm = limiter()
    first = played(arm, action(1.0))
    assert first.action[0] == pytest.approx(0.0125)
    assert set(first.clipped) == {"speed", "acceleration"}
    second = played(arm, action(1.0))
    # all of the 25 mm would end in a plan that overshoots the speed: nine tenths of the way from braking
    assert 0.0125 < second.action[0] <= 0.025
    moves = [played(arm, action(1.0)).action[0] for _ in range(3)]
    assert max(moves) <= 0.025 * (1 + 1e-6)
    assert played(arm, action(-1.0)).action[0] >= moves[-1] - 0.0125 * (1 + 1e-6)


def test_the_direction_of_a_fast_move_stays():
    executed = played(limiter(), action(0.3, 0.4, 0.0, rx=2.0)).action
    np.testing.assert_allclose(executed[:3] / np.linalg.norm(executed[:3]), [0.6, 0.8, 0.0], atol=1e-6)
    np.testing.assert_allclose(executed[3:6] / np.linalg.norm(executed[3:6]), [1.0, 0.0, 0.0], atol=1e-6)


def test_it_brakes_before_the_wall_not_at_it():
    arm = limiter()
    moves = np.array([played(arm, action(0.025)).action[0] for _ in range(40)], float)
    assert arm.positions[0, 0] == pytest.approx(0.70, abs=2e-3)
    assert arm.positions[0, 0] <= 0.70
    assert np.abs(np.diff(moves, prepend=0)).max() <= 0.0125 * (1 + 1e-6)
    assert abs(moves[-1]) < 1e-3
    assert played(arm, action(0.012)).clipped == ("workspace",)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_a_hold(bad):
    arm = limiter()
    played(arm, action(0.01))
    executed = played(arm, action(bad, 0.01, gripper=bad))
    assert np.isfinite(executed.action).all()
    assert executed.action[0] < 0.01
    assert "not finite" in executed.clipped
    assert "gripper" in executed.clipped
    assert executed.action[6] == 1.0


def test_a_joint_stops_at_its_margin():
    arm = limiter()
    reach = np.zeros((7, 6))
    reach[2, 1] = 10.0  # rad per m
    joint = 0.0
    for _ in range(40):
        executed = played(arm, action(y=0.02), np.eye(7)[2] * joint, reach)
        joint += 10.0 * float(executed.action[1])
    assert joint == pytest.approx(0.9, abs=0.01)
    assert joint <= 0.9 + 1e-6
    assert "joint" in executed.clipped


def test_joint_speed():
    reach = np.zeros((7, 6))
    reach[0, 0] = 50.0  # rad per m: 2 rad/s are 2 mm per control step
    executed = played(limiter(), action(0.01), per_move=reach)
    assert executed.action[0] <= 0.002
    assert "joint speed" in executed.clipped


def test_an_arm_that_is_blocked_is_not_pushed_on():
    arm = limiter(lag=0.05)
    blocked = Reach(position=HERE, joints=ZERO, per_move=STILL)
    for _ in range(20):
        executed = arm.clip(action(0.01), [blocked])
    assert 0.045 < arm.positions[0, 0] - HERE[0] <= 0.05
    assert "lag" in executed.clipped
    free = Reach(position=HERE + np.array([0.04, 0, 0]), joints=ZERO, per_move=STILL)
    assert arm.clip(action(0.01), [free]).action[0] > 0.005
    for _ in range(8):
        arm.skip()
    assert arm.clip(action(-0.01), [blocked]).clipped == ()  # back is always possible


def test_the_gripper_waits_before_it_turns_round():
    arm = limiter()
    targets = [played(arm, action(gripper=g)).action[6] for g in [0.0] + [1.0] * 11]
    assert targets == [0.0] * 10 + [1.0] * 2  # half a second at 20 Hz
    assert played(arm, action(gripper=2.5)).action[6] == 1.0


def test_skipped_control_steps_are_braking():
    arm = limiter()
    for _ in range(5):
        played(arm, action(0.02))
    before = arm.positions[0, 0]
    for _ in range(20):
        arm.skip()
    assert before < arm.positions[0, 0] < before + 0.05
    still = arm.positions.copy()
    arm.skip()
    np.testing.assert_array_equal(arm.positions, still)


def test_the_tilt_counts_from_upright():
    arm = limiter()
    for _ in range(60):
        executed = played(arm, action(rx=0.07))
    angle = np.linalg.norm(rotation_vector(arm.rotations[0]))
    assert 1.1 < angle <= 1.2
    assert "tilt" in executed.clipped
    assert played(arm, action(rx=-0.01)).clipped == ()


def test_rotations_by_hand():
    quarter = turned(np.array([0, 0, np.pi / 2]))
    np.testing.assert_allclose(quarter, [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-12)
    for vector in ([0.0, 0, 0], [0.3, -0.2, 0.9], [np.pi, 0, 0], [0, 1e-9, 0]):
        np.testing.assert_allclose(rotation_vector(turned(np.array(vector))), vector, atol=1e-9)


def test_the_jacobian_is_the_derivative():
    rng = np.random.default_rng(0)
    joints = READY + rng.normal(0, 0.3, 7)
    place, turn, jacobian = forward(joints)
    for i, step in enumerate(np.eye(7) * 1e-6):
        moved, other, _ = forward(joints + step)
        np.testing.assert_allclose((moved - place) / 1e-6, jacobian[:3, i], atol=1e-5)
        np.testing.assert_allclose(rotation_vector(other @ turn.T) / 1e-6, jacobian[3:, i], atol=1e-5)


@pytest.mark.parametrize(
    ("knobs", "word"),
    [
        ({"low": (0.4, -0.4, 0.02)}, "workspace"),
        ({"joint_margin": 1.0}, "joint"),
        ({"apart": 0.6}, "closer"),
    ],
)
def test_a_robot_that_stands_outside_is_refused(knobs, word):
    config = replace(TWO_ARMS, limits=LimitsConfig(**knobs))
    with pytest.raises(UserError, match=word) as error:
        FakeRobot(config, ManualClock())
    assert "\n" not in str(error.value)


def test_two_arms_meet_at_a_distance():
    robot = FakeRobot(TWO_ARMS, clock := ManualClock())
    wanted = np.tile(action(), 2)
    wanted[1], wanted[8] = -0.025, 0.025
    for _ in range(60):
        clock.time += DT
        executed = robot.command(wanted)
    gap = np.linalg.norm(np.diff(robot.tools + np.array(TWO_ARMS.bases)[:, :3], axis=0))
    assert 0.149 <= gap < 0.17
    assert "arms" in executed.clipped


def test_bases_may_be_turned():
    """A right arm that faces the left one from 1 m away: its forward is the left one's backward."""
    faced = replace(TWO_ARMS, bases=((0.0, 0.0, 0.0, 0.0), (1.0, 0.0, 0.0, np.pi)))
    robot = FakeRobot(faced, clock := ManualClock())
    wanted = np.tile(action(0.025), 2)
    for _ in range(60):
        clock.time += DT
        robot.command(wanted)
    left, right = robot.tools
    assert 0.149 <= np.linalg.norm([1.0, 0, 0] - right * [1, 1, -1] - left) < 0.17


@pytest.mark.parametrize("config", [ONE_ARM, TWO_ARMS], ids=["one arm", "two arms"])
def test_adversarial_actions(config):
    record = attack(config, 400)
    assert violations(record, config) == dict.fromkeys(violations(record, config), 0)
    assert len(record.clipped) >= 10


def test_the_auditor_sees_every_kind_of_violation():
    """A robot whose limiter knows wider limits than the auditor does is found guilty of all of them."""
    wide = LimitsConfig(
        low=(0.0, -2.0, -2.0), high=(2.0, 2.0, 2.0), speed=1.0, acceleration=12.0, jerk=300.0, turn_speed=4.0,
        turn_acceleration=50.0, turn_jerk=1500.0, tilt=3.0, apart=0.0, gripper_pause=0.1, joint_margin=-0.0,
    )  # fmt: skip
    record = attack(replace(TWO_ARMS, limits=wide), 600)
    tight = replace(TWO_ARMS, limits=LimitsConfig(apart=0.4, low=(0.3, -0.1, 0.3), high=(0.5, 0.1, 0.5)))
    innocent = {name for name, count in violations(record, tight).items() if not count}
    assert innocent <= {"joint", "gripper range"}
    worse = replace(record, joints=record.joints + 3.0, executed=record.executed - 5.0)
    assert violations(worse, tight)["joint"]
    assert violations(worse, tight)["gripper range"]


@pytest.mark.slow
@pytest.mark.parametrize("config", [ONE_ARM, TWO_ARMS], ids=["one arm", "two arms"])
def test_many_adversarial_actions(config):
    record = attack(config, 10_000, seed=1)  # a million: benchmarks.limits
    assert violations(record, config) == dict.fromkeys(violations(record, config), 0)
    assert np.all((record.joints > JOINT_LOW) & (record.joints < JOINT_HIGH))
    assert len(ATTACKS) == 12
