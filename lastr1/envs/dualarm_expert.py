"""The scripted expert of the dual-arm tasks, from privileged state, for demonstrations.

Axes: A action size (14), the left arm's 7 entries first.  m, rad, world coordinates.

Each arm plays a skill of its own (`libero_hand`); `both` plays two of them side by side.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from lastr1.envs.base import Recording, Start
from lastr1.envs.dualarm import DualArmEnv
from lastr1.envs.libero_geometry import DOWN, Points, about_z
from lastr1.envs.libero_hand import CLOSED, GRIP_STEPS, OPEN, UP, Servo, Skill
from lastr1.envs.stepped import Plan, plan_episode, record_plan

ROUNDS = 3  # times a task is tried from the beginning
ABOVE = 0.08  # m over a grasp from which the hand comes down
LIFT = 0.2  # m
MEETING = np.array([0.0, 0.0, 1.1])  # where the hammer's handle changes hands
END = 0.03  # m from the end of the handle to where it is held
AHEAD = np.array([0.0, 1.0, 0.0])  # from the left arm to the right one
ARMS = LEFT, RIGHT = 0, 1
NEUTRAL = (3 * np.pi / 4, -np.pi / 4)
"""yaw of each hand with its last joint in the middle: left and right arm face each other along y"""


class Pair:
    """Both hands in a scene of robosuite."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self._data = world.sim.data
        self.hands = tuple(Servo(partial(self.hand, arm)) for arm in ARMS)

    def hand(self, arm: int) -> tuple[Points, Points]:
        """Grip site [3] and rotation [3, 3] now (the controller's own frame)."""
        name = f"gripper{arm}_grip_site"
        return self._data.get_site_xpos(name).copy(), self._data.get_site_xmat(name).reshape(3, 3).copy()

    def body(self, name: str) -> tuple[Points, Points]:
        """Place [3] and rotation [3, 3] of a body."""
        return self._data.get_body_xpos(name).copy(), self._data.get_body_xmat(name).reshape(3, 3).copy()

    def site(self, name: str) -> Points:
        """Place [3] of a site."""
        return np.array(self._data.get_site_xpos(name))

    def across(self, arm: int, axis: Points) -> Points:
        """The hand's rotation [3, 3], pointing down, with its fingers closing across a level `axis` [3].

        Of the two, which are alike, the one nearer to the middle of the last joint.
        """
        yaw = float(np.arctan2(axis[1], axis[0]))
        turns = round((NEUTRAL[arm] - yaw) / np.pi)
        return np.asarray(about_z(yaw + np.pi * turns) @ DOWN)


def both(pair: Pair, left: Skill, right: Skill) -> Skill:
    """Two skills side by side; the arm that is done first stays where it is."""
    skills, resting = [left, right], [False, False]
    while True:
        moves = []
        for arm, hand in enumerate(pair.hands):
            move = next(skills[arm], None)
            if move is None:
                resting[arm] = True
                skills[arm] = hand.stay()
                move = next(skills[arm])
            moves.append(move)
        if all(resting):
            return
        yield np.concatenate(moves)


def lift_pot(pair: Pair) -> Skill:
    """Each arm takes its handle by the bar at its end; both go up together."""

    def to(height: float, grip: float, near: float) -> Skill:
        ways = [pair.site(f"pot_handle{arm}") + height * UP for arm in ARMS]
        left, right = (pair.hands[arm].go(ways[arm], turns[arm], grip, near=near) for arm in ARMS)
        return both(pair, left, right)

    def squeeze(grip: float) -> Skill:
        left, right = (hand.squeeze(grip, GRIP_STEPS) for hand in pair.hands)
        return both(pair, left, right)

    for _ in range(ROUNDS):
        _, turn = pair.body("pot_root")
        turns = [pair.across(arm, turn[:, 0]) for arm in ARMS]
        yield from to(ABOVE, OPEN, 0.02)
        yield from to(0.0, OPEN, 0.006)
        yield from squeeze(CLOSED)
        yield from to(LIFT, CLOSED, 0.01)
        yield from squeeze(OPEN)


def hand_over(pair: Pair) -> Skill:
    """The left arm takes the hammer by one end of its handle and holds it out; the right takes the other."""
    left, right = pair.hands
    reach = pair.world.hammer.handle_length / 2 - END
    waiting = MEETING + reach * AHEAD + (ABOVE + 0.02) * UP
    for _ in range(ROUNDS):
        handle, axis = _handle(pair)
        turn = about_z(float(np.arctan2(axis[1], axis[0]))) @ DOWN
        begin = _take(left, handle - reach * axis, turn)
        yield from both(pair, begin, right.go(waiting, pair.across(RIGHT, AHEAD), OPEN, near=0.02))
        at, _ = pair.hand(LEFT)
        up = left.go(at + 0.08 * UP, turn, CLOSED, near=0.03)
        yield from both(pair, up, right.squeeze(OPEN, 1))
        ahead = left.go(MEETING - reach * AHEAD, about_z(np.pi / 2) @ DOWN, CLOSED, near=0.02)
        yield from both(pair, ahead, right.squeeze(OPEN, 1))
        handle, axis = _handle(pair)
        end = _take(right, handle + reach * axis, pair.across(RIGHT, axis))
        yield from both(pair, left.squeeze(CLOSED, 1), end)
        yield from both(pair, left.squeeze(OPEN, GRIP_STEPS), right.squeeze(CLOSED, 1))
        at, held = pair.hand(LEFT)
        yield from both(pair, left.go(at + ABOVE * UP, held, OPEN), right.squeeze(CLOSED, 1))


def _handle(pair: Pair) -> tuple[Points, Points]:
    """Middle of the hammer's handle [3] and its level direction [3] away from the left arm."""
    at, turn = pair.body("hammer_root")
    axis = np.array([*turn[:2, 2], 0.0]) / np.linalg.norm(turn[:2, 2])
    return at, axis if axis[1] > 0 else -axis


def _take(hand: Servo, place: Points, turn: Points) -> Skill:
    yield from hand.go(place + ABOVE * UP, turn, OPEN, near=0.02)
    yield from hand.go(place, turn, OPEN, near=0.006, speed=0.8)
    yield from hand.squeeze(CLOSED, GRIP_STEPS)


SKILLS: dict[str, Callable[[Pair], Skill]] = {"TwoArmLift": lift_pot, "TwoArmHandover": hand_over}
"""robosuite's environment -> how it is done"""


class DualArmExpert:
    """Plans and records demonstrations of the dual-arm tasks."""

    def __init__(self, env: DualArmEnv) -> None:
        self._env = env

    def plan(self, start: Start, *, noise: float = 0.0, seed: int = 0) -> Plan:
        """Play the task's skill without drawing."""
        env = self._env
        return plan_episode(
            env, start, lambda: SKILLS[env.task.name](Pair(env.simulation)), noise=noise, seed=seed
        )

    def record(self, plan: Plan) -> Recording:
        """Replay a plan with the cameras on.  `ValueError`: the plan failed."""
        return record_plan(self._env, plan)
