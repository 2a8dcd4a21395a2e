"""The tasks of the embedded world: instructions, scenes, and what counts as solved.

`tabletop` and `tabletop_dual` are the target tasks; the `_base` suites hold every other combination of kind
and colours, so that no instruction of a target task is ever seen before its own demonstration.
"""

from dataclasses import dataclass
from itertools import permutations

import numpy as np

from lastr1.envs.base import Start
from lastr1.envs.tabletop_things import (
    BIN,
    BIN_FLOOR,
    EPS,
    OPENING,
    POST,
    SIDE,
    TRAY,
    ZONE,
    Arm,
    Body,
    Spot,
)
from lastr1.envs.tabletop_world import REST, World

COLORS = ("red", "green", "blue", "yellow", "purple", "orange")
TEMPLATES = {
    "reach": "touch the {0} block",
    "push": "push the {0} block to the {1} zone",
    "place": "put the {0} block in the {1} bin",
    "stack": "stack the {0} block on the {1} block",
    "lift": "lift the {0} tray with both arms",
    "handover": "hand the {0} block over and put it in the {1} bin",
}
TOUCH = 0.02  # m, how near the gripper tip must come to the middle of a block's top
TOUCH_HEIGHT = 0.012  # m above the top at most
LIFTED, LEVEL = 0.06, 0.03  # m: a lifted tray's lower end, and the most its ends may differ
FRESH, STORED = 0x5EED, 0x570E  # first words of the two seed streams, so that they never meet


@dataclass(frozen=True, kw_only=True)
class Task:
    """One instruction: a kind and its colours."""

    kind: str
    color: str
    """Of the block or tray to act on."""
    goal: str = ""
    """Of the zone, bin or block to bring it to; empty for kinds without one."""

    @property
    def instruction(self) -> str:
        """Lower case, no punctuation."""
        return TEMPLATES[self.kind].format(self.color, self.goal)


TARGETS = {
    "tabletop": (
        Task(kind="reach", color="purple"),
        Task(kind="push", color="red", goal="blue"),
        Task(kind="place", color="yellow", goal="green"),
        Task(kind="stack", color="blue", goal="orange"),
    ),
    "tabletop_dual": (
        Task(kind="lift", color="green"),
        Task(kind="handover", color="red", goal="yellow"),
    ),
}


def _others(targets: tuple[Task, ...]) -> tuple[Task, ...]:
    """Every combination of the targets' kinds and the colours that is not itself a target."""
    found = []
    for kind in dict.fromkeys(task.kind for task in targets):
        if "{1}" in TEMPLATES[kind]:
            found += [Task(kind=kind, color=a, goal=b) for a, b in permutations(COLORS, 2)]
        else:
            found += [Task(kind=kind, color=a) for a in COLORS]
    return tuple(task for task in found if task not in targets)


SUITES = TARGETS | {f"{name}_base": _others(targets) for name, targets in TARGETS.items()}


def solved(task: Task, world: World) -> bool:
    """Whether the task's goal holds now."""
    if task.kind == "lift":
        tray = world.body(task.color, TRAY)
        ends = (tray.at[2], tray.at[2] + tray.tilt)
        return len(world.holders(tray)) == 2 and min(ends) > LIFTED and abs(tray.tilt) <= LEVEL
    block = world.body(task.color)
    x, y, z = block.at
    if task.kind == "reach":
        tip = world.arms[0].at
        near = (tip[0] - x) ** 2 + (tip[1] - y) ** 2 <= TOUCH**2
        return near and z <= tip[2] <= z + SIDE + TOUCH_HEIGHT
    if world.holders(block):
        return False
    if task.kind == "push":
        return z <= EPS and spot(world.zones, task.goal).offset(block) <= ZONE
    if task.kind == "stack":
        base = world.body(task.goal)
        level = abs(z - base.at[2] - SIDE) <= EPS and not world.holders(base)
        return level and max(abs(x - base.at[0]), abs(y - base.at[1])) <= REST + EPS
    return z <= BIN_FLOOR + EPS and spot(world.bins, task.goal).offset(block) < BIN


def spot(spots: tuple[Spot, ...], color: str) -> Spot:
    """The zone or bin of a colour."""
    return next(place for place in spots if place.color == color)


class _Layout:
    """Draws things that do not overlap; a crowded draw raises `_Crowded` and is begun anew."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.taken: list[tuple[float, float, float, float]] = []

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def claim(self, x: float, y: float, half_x: float, half_y: float) -> None:
        """Keep a rectangle free of what is drawn later."""
        self.taken.append((x, y, half_x, half_y))

    def take(self, x: float, y: float, half_x: float, half_y: float) -> bool:
        """Claim a rectangle; False (and no claim) when it meets another one."""
        for cx, cy, hx, hy in self.taken:
            if abs(x - cx) < half_x + hx and abs(y - cy) < half_y + hy:
                return False
        self.claim(x, y, half_x, half_y)
        return True

    def place(
        self, xs: tuple[float, float], ys: tuple[float, float], half_x: float, half_y: float
    ) -> tuple[float, float]:
        """A free rectangle with its middle in the ranges."""
        for _ in range(60):
            x, y = self.uniform(*xs), self.uniform(*ys)
            if self.take(x, y, half_x, half_y):
                return x, y
        raise _Crowded

    def block(self, color: str, xs: tuple[float, float] = (-0.18, 0.18)) -> Body:
        """A block with room for the open gripper around it."""
        # Two blocks stay 8.8 cm (x) or 6 cm (y) apart: an open finger always fits between them.
        x, y = self.place(xs, (-0.17, 0.14), 0.044, 0.03)
        return Body(color=color, at=[x, y, 0.0])

    def colors(self, *used: str) -> list[str]:
        """The colours not used yet, in random order."""
        return [str(c) for c in self.rng.permutation([c for c in COLORS if c not in used])]


class _Crowded(Exception):
    pass


def _arms(layout: _Layout, dual: bool) -> list[Arm]:
    def arm(x: float, reach: tuple[float, float]) -> Arm:
        at = [x + layout.uniform(-0.04, 0.04), layout.uniform(-0.02, 0.08), layout.uniform(0.13, 0.18)]
        return Arm(at=at, reach=reach)

    if dual:
        return [arm(-0.15, (-0.25, 0.08)), arm(0.15, (-0.08, 0.25))]
    return [arm(0.0, (-0.25, 0.25))]


def _loose(task: Task, layout: _Layout) -> World:
    """Reach and stack: the blocks of the task and others."""
    named = [task.color] + ([task.goal] if task.goal else [])
    colors = named + layout.colors(*named)[: 3 - len(named)]
    return World(bodies=[layout.block(c) for c in colors], arms=_arms(layout, False))


def _push(task: Task, layout: _Layout) -> World:
    """Push: both zones lie straight ahead of the block, in two directions: only the words tell which."""
    x, y = layout.uniform(-0.06, 0.06), layout.uniform(-0.12, -0.04)
    ways = layout.rng.permutation(np.array([[-1, 0], [1, 0], [0, 1]]))
    zones = []
    layout.claim(x, y, 0.06, 0.06)
    for color, (dx, dy) in zip((task.goal, layout.colors(task.color, task.goal)[0]), ways, strict=False):
        length, aside = layout.uniform(0.11, 0.16), layout.uniform(-0.02, 0.02)
        spot = Spot(color=color, x=x + dx * length + dy * aside, y=y + dy * length + dx * aside)
        zones.append(spot)
        layout.claim(
            (x + spot.x) / 2, (y + spot.y) / 2, abs(x - spot.x) / 2 + 0.05, abs(y - spot.y) / 2 + 0.05
        )
    if max(abs(zones[0].x - zones[1].x), abs(zones[0].y - zones[1].y)) < 2 * ZONE + 0.01:
        raise _Crowded
    # The other block keeps off the two ways: it is there to be mistaken for the right one.
    other = layout.block(layout.colors(task.color)[0])
    bodies = [Body(color=task.color, at=[x, y, 0.0]), other]
    return World(bodies=bodies, arms=_arms(layout, False), zones=tuple(zones))


def _place(task: Task, layout: _Layout) -> World:
    """Place: two bins and three blocks anywhere."""
    bins = []
    for color in (task.goal, layout.colors(task.goal)[0]):
        x, y = layout.place((-0.17, 0.17), (-0.16, 0.14), 0.065, 0.065)
        bins.append(Spot(color=color, x=x, y=y))
    bodies = [layout.block(c) for c in [task.color, *layout.colors(task.color)[:2]]]
    return World(bodies=bodies, arms=_arms(layout, False), bins=tuple(bins))


def _lift(task: Task, layout: _Layout) -> World:
    """Lift: two trays, one behind the other, and a block."""
    rows = layout.rng.permutation([-0.11, 0.07])
    trays = []
    colors = [task.color, *layout.colors(task.color)]
    for color, row in zip(colors, rows, strict=False):
        x, y = layout.uniform(-0.04, 0.04), float(row) + layout.uniform(-0.03, 0.03)
        layout.claim(x, y, POST + OPENING + 0.02, 0.045)
        trays.append(Body(color=color, at=[x, y, 0.0], parts=TRAY))
    return World(bodies=[*trays, layout.block(colors[2])], arms=_arms(layout, True))


def _handover(task: Task, layout: _Layout) -> World:
    """Handover: blocks where only the left arm reaches, bins where only the right one does."""
    bins = []
    rows = layout.rng.permutation([-0.11, 0.07])
    for color, row in zip((task.goal, layout.colors(task.goal)[0]), rows, strict=True):
        bins.append(
            Spot(color=color, x=layout.uniform(0.155, 0.19), y=float(row) + layout.uniform(-0.02, 0.02))
        )
    bodies = [layout.block(c, (-0.2, -0.13)) for c in [task.color, *layout.colors(task.color)[:2]]]
    return World(bodies=bodies, arms=_arms(layout, True), bins=tuple(bins))


SCENES = {
    "reach": _loose,
    "push": _push,
    "place": _place,
    "stack": _loose,
    "lift": _lift,
    "handover": _handover,
}


def scene(task: Task, start: Start) -> World:
    """Lay out a task's scene: PCG64 over (stream, task, number); stored states have a stream of their own."""
    words = (FRESH, start.task, start.seed) if start.state is None else (STORED, start.task, start.state)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))
    while True:
        try:
            return SCENES[task.kind](task, _Layout(rng))
        except _Crowded:
            continue
