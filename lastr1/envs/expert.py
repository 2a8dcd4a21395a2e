"""The scripted expert of the embedded world, and the episodes it plays.

The expert looks at the state of the physics and at nothing else: no phase is remembered, so it takes over
from any state, picks up again what was dropped, and approaches again what was missed.
"""

from dataclasses import replace
from math import hypot

import numpy as np

from lastr1.envs.base import Recording, Start
from lastr1.envs.tabletop import TabletopEnv
from lastr1.envs.tabletop_tasks import Task, spot
from lastr1.envs.tabletop_things import FINGER, SIDE, TRAY, Arm, Body, Spot
from lastr1.envs.tabletop_world import STEP, World
from lastr1.types import ActionChunk, Floats, Observation

Move = tuple[float, float, float, float]  # x, y, z in -1..1 and the gripper

OPEN, CLOSED = 1.0, 0.0
PACE = 0.7  # largest action: the expert is not in a hurry, so that a policy gets more looks on its way
GAIN = 0.5  # share of the remaining way travelled per control step: slows down near the goal
NEAR = 0.007  # m, near enough above a goal to go straight down
CLEAR = 0.018  # m off a goal sideways at which the gripper must be high
HOVER = 0.03  # m above a block's top
PREFIX, STRAY = 25, 12  # most disturbed control steps before a recording, and most that go astray after them
CARRY = 0.095  # m, height of the tip while it carries a block over others


def _toward(arm: Arm, x: float, y: float, z: float, gripper: float, limit: float = PACE) -> Move:
    """Straight to a point, slower near it."""
    way = [GAIN * (goal - now) / STEP for goal, now in zip((x, y, z), arm.at, strict=True)]
    scale = min(1.0, limit / max(1e-9, *(abs(v) for v in way)))
    return (way[0] * scale, way[1] * scale, way[2] * scale, gripper)


def _over(arm: Arm, x: float, y: float, low: float, high: float, gripper: float) -> Move:
    """To (x, y, low) from above: high until it is over the goal, and no sideways motion while low and far."""
    off = hypot(x - arm.at[0], y - arm.at[1])
    if off > CLEAR and arm.at[2] < high - 0.02:
        return _toward(arm, arm.at[0], arm.at[1], high, gripper)
    # The lower, the nearer it must be: a funnel that ends at NEAR.
    height = low + (high - low) * min(max(off - NEAR, 0.0) / (2 * CLEAR), 1.0)
    return _toward(arm, x, y, height, gripper)


def _grasp(arm: Arm, body: Body, part: int = 0) -> Move:
    """Take hold of a body that is not held by this arm."""
    box = body.box(body.parts[part])
    x, y, z = ((box[i] + box[i + 3]) / 2 for i in range(3))
    if arm.held is not None:
        return (0.0, 0.0, 0.0, OPEN)
    off = max(abs(x - arm.at[0]), abs(y - arm.at[1]))
    # Once they close, the fingers go on closing as long as they can still succeed.
    begun = 0.45 < arm.open < 0.95
    if off < (0.017 if begun else 0.013) and arm.at[2] - z < (0.018 if begun else 0.012) and arm.open > 0.45:
        return _toward(arm, x, y, min(z, arm.at[2]), CLOSED, 0.3)
    high = box[5] + HOVER
    # With the fingers still closed it must not go down: they would land on the block.
    low = high if arm.open < 0.9 and arm.at[2] > z + 0.015 else z - 0.003
    return _over(arm, x, y, low, high, OPEN)


def _push_to(arm: Arm, block: Body, x: float, y: float) -> Move:
    """Push a block toward (x, y): from behind, along the axis on which it is farther off."""
    if arm.held is not None:
        return (0.0, 0.0, 0.0, OPEN)
    off = [x - block.at[0], y - block.at[1]]
    axis = 0 if abs(off[0]) > abs(off[1]) else 1
    sign = 1 if off[axis] > 0 else -1
    reach = SIDE / 2 + FINGER[axis]
    aside = abs(arm.at[1 - axis] - block.at[1 - axis])
    behind = sign * (block.at[axis] - arm.at[axis]) - reach
    goal = [block.at[0], block.at[1]]
    if arm.at[2] < 0.035 and aside < 0.018 and -0.001 < behind < 0.06 and arm.open < 0.1:
        goal[axis] += off[axis] - sign * reach
        return _toward(arm, goal[0], goal[1], 0.015, CLOSED)
    goal[axis] -= sign * (reach + 0.02)
    return _over(arm, goal[0], goal[1], 0.015, SIDE + HOVER, CLOSED)


def _take(world: World, arm: Arm, block: Body) -> Move:
    """Take hold of a block; push it along y first where the open fingers would land on a neighbour."""
    x, y, _ = block.at
    for other in world.bodies:
        dx, dy = abs(other.at[0] - x), y - other.at[1]
        if other is not block and 0.022 < dx < 0.074 and abs(dy) < 0.034 and other.at[2] < SIDE:
            away = dy if abs(dy) > 0.005 else -y
            return _push_to(arm, block, x, y + (0.06 if away > 0 else -0.06))
    return _grasp(arm, block)


def _carry(arm: Arm, x: float, y: float, low: float) -> Move:
    """Bring what is held to (x, y), the tip at `low`, and let it go."""
    off = max(abs(x - arm.at[0]), abs(y - arm.at[1]))
    if off < 0.012 and arm.at[2] < low + 0.012:
        return (0.0, 0.0, 0.0, OPEN)
    return _over(arm, x, y, low, max(CARRY, low + 0.02), CLOSED)


def _reach(world: World, task: Task) -> Move:
    x, y, z = world.body(task.color).at
    return _over(world.arms[0], x, y, z + SIDE + 0.004, z + SIDE + HOVER, OPEN)


def _push(world: World, task: Task) -> Move:
    zone = spot(world.zones, task.goal)
    return _push_to(world.arms[0], world.body(task.color), zone.x, zone.y)


def _place(world: World, task: Task) -> Move:
    arm, block, goal = world.arms[0], world.body(task.color), spot(world.bins, task.goal)
    return _into_bin(world, arm, block, goal)


def _into_bin(world: World, arm: Arm, block: Body, goal: Spot) -> Move:
    if arm.held is not block:
        return _take(world, arm, block)
    # Above the wall: the open fingers do not fit into the bin everywhere.
    return _carry(arm, goal.x, goal.y, 0.055)


def _stack(world: World, task: Task) -> Move:
    arm, block, base = world.arms[0], world.body(task.color), world.body(task.goal)
    if arm.held is not block:
        return _take(world, arm, block)
    grip = arm.at[2] - block.at[2]
    x, y = base.at[0] + arm.at[0] - block.at[0], base.at[1] + arm.at[1] - block.at[1]
    return _carry(arm, x, y, base.at[2] + SIDE + grip + 0.003)


def _lift(world: World, task: Task) -> tuple[Move, Move]:
    tray = world.body(task.color, TRAY)
    left, right = world.arms
    if left.held is tray and right.held is tray:
        low = min(left.at[2], right.at[2])
        up = [_toward(arm, arm.at[0], arm.at[1], min(low + 0.035, 0.15), CLOSED) for arm in world.arms]
        return up[0], up[1]
    moves = [
        (0.0, 0.0, 0.0, CLOSED) if arm.held is tray and arm.part == i else _grasp(arm, tray, i)
        for i, arm in enumerate(world.arms)
    ]
    return moves[0], moves[1]


def _handover(world: World, task: Task) -> tuple[Move, Move]:
    """The left arm puts the block down in the middle, the right one takes it to the bin."""
    left, right = world.arms
    block, goal = world.body(task.color), spot(world.bins, task.goal)
    aside = [_over(arm, x, 0.05, 0.13, 0.13, OPEN) for arm, x in ((left, -0.17), (right, 0.17))]
    if left.held is block:
        y = _middle(world, block)
        return _carry(left, 0.0, y, left.at[2] - block.at[2] + 0.002), _over(right, 0.14, y, 0.1, 0.1, OPEN)
    if right.held is block:
        return aside[0], _into_bin(world, right, block, goal)
    if block.at[0] > -0.045:
        # The right arm waits until the left one is out of its way.
        if left.at[0] > block.at[0] - 0.11:
            return aside[0], _over(right, block.at[0] + 0.14, block.at[1], 0.1, 0.1, OPEN)
        return aside[0], _into_bin(world, right, block, goal)
    return _take(world, left, block), aside[1]


def _middle(world: World, block: Body) -> float:
    """Where along y the block is put down: near its own, on free ground."""
    taken = [b.at[1] for b in world.bodies if b is not block and abs(b.at[0]) < 0.08]
    choices = [0.02 * i for i in range(-6, 6) if all(abs(0.02 * i - y) > 0.065 for y in taken)]
    return min(choices or [0.0], key=lambda y: abs(y - block.at[1]))


ONE_ARM = {"reach": _reach, "push": _push, "place": _place, "stack": _stack}
TWO_ARMS = {"lift": _lift, "handover": _handover}


class TabletopExpert:
    """A closed-loop policy from privileged state, for every task of the embedded world."""

    def act(self, env: TabletopEnv) -> Floats:
        """The next control step [A] in the units of `env.spec.action`."""
        world, task = env.world, env.task
        if env.dual:
            left, right = TWO_ARMS[task.kind](world, task)
            return np.array(left + right, dtype=np.float32)
        return np.array(ONE_ARM[task.kind](world, task), dtype=np.float32)


def collect_episode(
    env: TabletopEnv,
    expert: TabletopExpert,
    start: Start,
    *,
    noise: float = 0.0,
    rng: np.random.Generator,
) -> Recording:
    """Play one episode control step by control step.

    With `noise` (standard deviation in controller units), up to `PREFIX + STRAY` disturbed control steps come
    first and are not recorded, so that demonstrations also begin where a clumsy policy ends up.  What is
    recorded is always what was executed: replaying the actions from the first recorded state repeats it.
    """
    first = env.reset(start)
    if noise:
        first = _disturb(env, expert, start, noise, rng)
    seen = [first]
    actions: list[Floats] = []
    while True:
        actions.append(expert.act(env))
        outcome = env.play(ActionChunk(actions=actions[-1][None]))
        seen.append(outcome.observation)
        if outcome.terminated or outcome.truncated:
            break
    return Recording(
        start=start,
        instruction=first.instruction,
        frames={c.name: np.stack([o.images[c.name] for o in seen]) for c in env.spec.cameras},
        states=np.stack([o.state for o in seen]),
        actions=np.stack(actions),
        success=outcome.terminated,
    )


def _disturb(
    env: TabletopEnv, expert: TabletopExpert, start: Start, noise: float, rng: np.random.Generator
) -> Observation:
    """Somewhere a clumsy policy might be; the start itself if the way there ends the episode.

    First the expert with disturbed moves; then, two times out of three, straight on in a random direction
    with the gripper opening or closing, as after a grasp that missed.  The step cap starts anew.
    """
    steps = int(rng.integers(PREFIX + 1))
    astray = int(rng.integers(1, STRAY + 1)) if rng.random() < 2 / 3 else 0
    moved = np.array([0.0 if dim.binary else noise for dim in env.spec.action], dtype=np.float32)
    course = np.array([rng.integers(2) if dim.binary else rng.uniform(-1, 1) for dim in env.spec.action])
    for step in range(steps + astray):
        action = course
        if step < steps:
            action = expert.act(env) + moved * rng.standard_normal(len(moved), dtype=np.float32)
        outcome = env.play(ActionChunk(actions=np.asarray(action, dtype=np.float32)[None]))
        if outcome.terminated or outcome.truncated:
            return env.reset(start)
    return env.restore(replace(env.snapshot(), steps=0))
