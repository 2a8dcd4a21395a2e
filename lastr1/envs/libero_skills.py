"""The scripted experts of LIBERO: from a task's goal to actions, and how to pick and place.

Every goal is pursued until LIBERO's own check holds: what was missed, dropped or undone is tried again, with
another grasp.  docs/EXPERTS.md says how often that succeeds, and in which tasks it does not.
"""

from collections.abc import Generator

import numpy as np

from lastr1.envs.libero_fixtures import close_drawer, in_drawer, open_drawer, turn_knob
from lastr1.envs.libero_geometry import (
    DOWN,
    Grasp,
    Points,
    Scene,
    about_z,
    best_grasp,
    middle,
    way_out,
)
from lastr1.envs.libero_hand import CLOSED, GRIP_STEPS, OPEN, UP, Hand, Skill
from lastr1.envs.libero_microwave import close_door, is_microwave, put_in
from lastr1.types import Floats, UserError

ROUNDS = 4  # times all goals are gone through
GRASPS = 3  # times an object is taken hold of in one round
FOLLOWS = 0.3  # share of the hand's rise by which an object in its grip rises at least: some of it swings
SETTLE = 20  # control steps in which what was let go may still be falling
ORDER = ("open", "turnon", "turnoff", "on", "in", "close")
Goal = tuple[tuple[str, ...], ...]


def solve(scene: Scene, goal: Goal) -> Skill:
    """All of a task's goals, one after the other, and again those that do not hold."""
    hand = Hand(scene)
    wanted = sorted(goal, key=lambda predicate: ORDER.index(predicate[0]))
    for _ in range(ROUNDS):
        for predicate in wanted:
            if not scene.holds(predicate):
                yield from _reach(hand, predicate, goal)
                for _ in range(SETTLE):
                    if scene.holds(predicate):
                        break
                    yield from hand.squeeze(OPEN, 1)


def _reach(hand: Hand, predicate: tuple[str, ...], goal: Goal) -> Skill:
    """The skill for one goal."""
    scene, (kind, *names) = hand.scene, predicate
    if kind in ("on", "in"):
        if scene.is_drawer(names[1]) and not scene.is_open(names[1]):
            yield from open_drawer(hand, names[1])
        if kind == "in" and is_microwave(names[1]):
            yield from put_in(hand, names[0], names[1])
            return
        mates = [p[1] for p in goal if (p[0], p[-1]) == ("on", names[1])] or [names[0]]
        yield from _pick_and_place(hand, names[0], names[1], mates)
    elif kind == "open":
        yield from open_drawer(hand, names[0])
    elif kind == "close" and scene.is_drawer(names[0]):
        yield from close_drawer(hand, names[0])
    elif kind == "close" and is_microwave(names[0]):
        yield from close_door(hand, names[0])
    elif kind == "turnon":
        yield from turn_knob(hand, names[0])
    else:
        raise UserError(f"no scripted expert reaches the goal {kind!r} of this task: choose another task")


def _pick_and_place(hand: Hand, name: str, target: str, mates: list[str]) -> Skill:
    """`mates` are the objects that share the target, this one among them."""
    scene, tried = hand.scene, list[Grasp]()
    centre, floor = _destination(scene, name, target, mates)
    for _ in range(GRASPS):
        others = scene.others(name)
        tried.append(best_grasp(scene.points(name), others, tried))
        rotation = about_z(tried[-1].yaw) @ DOWN
        yield from _pick(hand, tried[-1], rotation, others)
        yield from _slide_out(hand, rotation, scene.points(name), others)
        low, held = scene.points(name)[:, 2].min(), scene.hand()[0][2]
        height = yield from _lift(hand, name, rotation, centre, floor)
        risen = scene.points(name)[:, 2].min() - low
        if risen > FOLLOWS * (scene.hand()[0][2] - held) - 0.002:
            yield from _place(hand, name, rotation, np.array([*centre, floor]), height)
            return
        yield from hand.squeeze(OPEN, GRIP_STEPS)


def _pick(hand: Hand, grasp: Grasp, rotation: Points, others: Points) -> Skill:
    at, _ = hand.scene.hand()
    above = max(grasp.site[2] + 0.08, _highest(others, at, grasp.site) + 0.04)
    if at[2] < above - 0.03:
        yield from hand.go(np.array([at[0], at[1], above]), rotation, OPEN, near=0.04, turned=3.0)
    yield from hand.go(np.array([*grasp.site[:2], above]), rotation, OPEN, near=0.02, turned=0.15, limit=80)
    yield from hand.go(grasp.site + 0.03 * UP, rotation, OPEN, near=0.008, limit=30)
    yield from hand.go(grasp.site, rotation, OPEN, near=0.004, speed=0.5, limit=25)
    yield from hand.squeeze(CLOSED, GRIP_STEPS + 1)


def _slide_out(hand: Hand, rotation: Points, own: Points, others: Points) -> Skill:
    """From under what hangs over the object, an opened drawer for example."""
    shift = way_out(own, others)
    if shift.any():
        at, _ = hand.scene.hand()
        yield from hand.go(at + 0.01 * UP + shift, rotation, CLOSED, near=0.02, speed=0.6)


def _destination(scene: Scene, name: str, target: str, mates: list[str]) -> tuple[Points, float]:
    """Where the middle of an object goes (x, y) and how high its underside is when it is let go."""
    if target in scene.objects:
        below = scene.points(target)
        centre = middle(below)[:2]
        return centre, _top(below, centre, 0.03) + 0.008
    if scene.is_drawer(target):
        return in_drawer(scene, name, target)
    centre = scene.site(target)
    owner = scene.owner(target)
    if owner in scene.objects:  # a basket: let go over its rim
        return centre[:2], float(scene.points(owner)[:, 2].max()) + 0.005
    centre += _share(scene, name, mates)
    return centre[:2], _top(scene.others(name), centre[:2], 0.03, default=float(centre[2])) + 0.012


def _share(scene: Scene, name: str, mates: list[str]) -> Points:
    """How far [3] from the middle of a region this one of several objects goes: side by side where short."""
    size = np.ptp(scene.points(name), axis=0)
    axis = int(np.argmin(size[:2]))
    shift = np.zeros(3)
    shift[axis] = (mates.index(name) - (len(mates) - 1) / 2) * (size[axis] + 0.02)
    return shift


def _lift(
    hand: Hand, name: str, rotation: Points, centre: Points, floor: float
) -> Generator[Floats, None, float]:
    """Up to where the way to the target is free; that height of the hand is the generator's value."""
    scene = hand.scene
    at, _ = scene.hand()
    hangs = at[2] - scene.points(name)[:, 2].min()
    over = _highest(scene.others(name), at, np.array([*centre, 0.0]))
    height = float(max(over + 0.03, floor + 0.03) + hangs)
    yield from hand.go(np.array([at[0], at[1], height]), rotation, CLOSED, near=0.03, limit=50)
    return height


def _place(hand: Hand, name: str, rotation: Points, target: Points, height: float) -> Skill:
    scene = hand.scene
    for lowering in (False, True):
        for _ in range(1 if lowering else 2):  # the object may have slipped or swung: look again
            own, (at, _) = scene.points(name), scene.hand()
            goal = target + at - np.array([*middle(own)[:2], own[:, 2].min()])
            if not lowering:
                goal[2] = max(goal[2], height if np.linalg.norm((goal - at)[:2]) > 0.05 else at[2])
            yield from hand.go(
                goal,
                rotation,
                CLOSED,
                near=0.008 if lowering else 0.015,
                speed=0.8 if lowering else 1.0,
                limit=80,
            )
    yield from hand.squeeze(OPEN, GRIP_STEPS - 2)
    at, _ = scene.hand()
    yield from hand.go(at + 0.1 * UP, rotation, OPEN, near=0.03, limit=25)


def _highest(points: Points, start: Points, goal: Points) -> float:
    """The top of what lies within 9 cm of the straight way from start to goal."""
    way = goal[:2] - start[:2]
    share = np.clip((points[:, :2] - start[:2]) @ way / max(float(way @ way), 1e-9), 0.0, 1.0)
    beside = np.linalg.norm(points[:, :2] - start[:2] - share[:, None] * way, axis=1) < 0.09
    return float(points[beside, 2].max(initial=-np.inf))


def _top(points: Points, centre: Points, radius: float, default: float = -np.inf) -> float:
    """Height of the surface within `radius` of a point."""
    return float(points[np.linalg.norm(points[:, :2] - centre, axis=1) < radius, 2].max(initial=default))
