"""The skills of LIBERO's scripted experts: pick, place, open and close drawers, turn the stove's knob.

A skill is a generator: it reads the scene, yields the next action in the policy's own convention (gripper 1 =
open, shape [7]) and is resumed when that control step has been played.  m, rad.

Not mastered: the microwave (`UserError`), a bowl under an opened drawer (libero_goal 3), pushing a drawer
shut (libero_10 3).  Of libero_10 and libero_90 they cover what they happen to cover: ask `Plan.success`.
"""

from collections.abc import Iterator

import numpy as np

from lastr1.envs.libero_geometry import (
    DOWN,
    Grasp,
    Points,
    Scene,
    about_x,
    about_z,
    best_grasp,
    middle,
    rotation_vector,
)
from lastr1.types import Floats, UserError

OPEN, CLOSED = 1.0, 0.0
SLEW = 0.3  # largest change of an action entry from one control step to the next
REACH, TURN = 0.05, 0.5  # what an action of 1 asks of the controller: m and rad
UP = np.array([0.0, 0.0, 1.0])
TURNED = np.diag([-1.0, -1.0, 1.0])  # half a turn of the hand about its own axis
STALL = 6  # control steps without motion after which the hand is taken to be where it can get
GRIP_STEPS = 8  # the fingers need that many control steps from open to closed
Skill = Iterator[Floats]


def solve(scene: Scene, goal: tuple[tuple[str, ...], ...]) -> Skill:
    """All of a task's goals, one after the other."""
    hand = _Hand(scene)
    for predicate, *names in sorted(goal, key=lambda g: ("open", "turnon", "on", "in", "close").index(g[0])):
        if predicate in ("on", "in"):
            if scene.is_drawer(names[1]) and not scene.is_open(names[1]):
                yield from _open_drawer(hand, names[1])
            yield from _pick_and_place(hand, names[0], names[1])
        elif predicate == "open":
            yield from _open_drawer(hand, names[0])
        elif predicate == "close" and scene.is_drawer(names[0]):
            yield from _close_drawer(hand, names[0])
        elif predicate == "turnon":
            yield from _turn_knob(hand, names[0])
        else:
            raise UserError(
                f"no scripted expert reaches the goal {predicate!r} of this task: choose another task"
            )
    yield from hand.squeeze(OPEN, 20)  # what was let go may still be falling


class _Hand:
    """Servo of the gripper towards a pose, in controller units."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._last = np.zeros(6)

    def towards(self, place: Points, rotation: Points, gripper: float, speed: float) -> Floats:
        """The next action towards a pose: what the controller is asked is the pose itself once in reach."""
        at, turned = self.scene.hand()
        move = (place - at) / REACH
        move *= min(1.0, speed / max(float(np.abs(move).max()), 1e-9))
        turn = rotation_vector(rotation @ turned.T) / TURN
        turn *= min(1.0, 1.0 / max(float(np.abs(turn).max()), 1e-9))
        wanted = np.concatenate([move, turn])
        self._last = self._last + np.clip(wanted - self._last, -SLEW, SLEW)
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
            at, now = self.scene.hand()
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
        place, rotation = self.scene.hand()
        for _ in range(steps):
            yield self.towards(place, rotation, gripper, 1.0)


def _pick_and_place(hand: _Hand, name: str, target: str) -> Skill:
    scene = hand.scene
    others = scene.others(name)
    grasp = best_grasp(scene.points(name), others)
    rotation = about_z(grasp.yaw) @ DOWN
    yield from _pick(hand, grasp, rotation, others)
    centre, floor = _destination(scene, name, target)
    yield from _carry(hand, name, rotation, centre, floor)


def _pick(hand: _Hand, grasp: Grasp, rotation: Points, others: Points) -> Skill:
    at, _ = hand.scene.hand()
    above = max(grasp.site[2] + 0.08, _highest(others, at, grasp.site) + 0.04)
    if at[2] < above - 0.03:
        yield from hand.go(np.array([at[0], at[1], above]), rotation, OPEN, near=0.04, turned=3.0)
    yield from hand.go(np.array([*grasp.site[:2], above]), rotation, OPEN, near=0.02, turned=0.15, limit=80)
    yield from hand.go(grasp.site + 0.03 * UP, rotation, OPEN, near=0.008, limit=30)
    yield from hand.go(grasp.site, rotation, OPEN, near=0.004, speed=0.5, limit=25)
    yield from hand.squeeze(CLOSED, GRIP_STEPS + 1)


def _destination(scene: Scene, name: str, target: str) -> tuple[Points, float]:
    """Where the middle of an object goes (x, y) and how high its underside is when it is let go."""
    if target in scene.objects:
        below = scene.points(target)
        centre = middle(below)[:2]
        return centre, _top(below, centre, 0.03) + 0.008
    if scene.is_drawer(target):
        return _in_drawer(scene, name, target)
    centre = scene.site(target)
    owner = scene.owner(target)
    if owner in scene.objects:  # a basket: let go over its rim
        return centre[:2], float(scene.points(owner)[:, 2].max()) + 0.005
    return centre[:2], _top(scene.others(name), centre[:2], 0.03, default=float(centre[2])) + 0.012


def _carry(hand: _Hand, name: str, rotation: Points, centre: Points, floor: float) -> Skill:
    scene = hand.scene
    at, _ = scene.hand()
    own = scene.points(name)
    hangs = at[2] - own[:, 2].min()
    height = max(_highest(scene.others(name), at, np.array([*centre, 0.0])) + 0.03, floor + 0.03) + hangs
    yield from hand.go(np.array([at[0], at[1], height]), rotation, CLOSED, near=0.03, limit=50)
    for lowering in (False, True):
        for _ in range(1 if lowering else 2):  # the object may have slipped or swung: look again
            own, (at, _) = scene.points(name), scene.hand()
            offset = at - np.array([*middle(own)[:2], own[:, 2].min()])
            goal = np.array([*centre, floor]) + offset
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


def _drawer(scene: Scene, region: str) -> tuple[Points, Points, Points]:
    """A drawer's front or handle [3], the way it opens [3], and the hand's rotation [3, 3] facing it."""
    cabinet, _, level = region.removesuffix("_region").rpartition("_")
    outwards = -scene.joint_axis(cabinet, level)  # LIBERO's drawers open along the negative axis
    drawer = scene.points(cabinet, level)
    depth = drawer @ outwards
    facing = about_z(float(np.arctan2(outwards[1], outwards[0])) - np.pi / 2) @ about_x(-np.pi / 2) @ DOWN
    # The two fingers are alike: of the two ways to turn the wrist, the one nearer to pointing down.
    facing = min((facing, facing @ TURNED), key=lambda r: float(np.linalg.norm(rotation_vector(r @ DOWN.T))))
    return middle(drawer[depth > depth.max() - 0.015]), outwards, facing


def _face(hand: _Hand, front: Points, outwards: Points, rotation: Points, gripper: float) -> Skill:
    """Bring the hand in front of a drawer, lying down."""
    at, _ = hand.scene.hand()
    before = front + 0.13 * outwards
    up = np.array([at[0], at[1], max(at[2], before[2] + 0.1)])
    yield from hand.go(up, DOWN, gripper, near=0.03, turned=0.5, limit=15)
    yield from hand.go(before + 0.12 * UP, rotation, gripper, near=0.03, turned=0.25, limit=70)
    yield from hand.go(before, rotation, gripper, near=0.015, turned=0.12, limit=50)


def _open_drawer(hand: _Hand, region: str) -> Skill:
    """Take the handle from the front and pull."""
    handle, outwards, rotation = _drawer(hand.scene, region)
    yield from _face(hand, handle, outwards, rotation, OPEN)
    yield from hand.go(handle + 0.002 * outwards, rotation, OPEN, speed=0.5, limit=40)
    yield from hand.squeeze(CLOSED, GRIP_STEPS + 1)
    yield from hand.go(handle + 0.2 * outwards, rotation, CLOSED, near=0.02, speed=0.8)
    yield from hand.squeeze(OPEN, GRIP_STEPS)
    at, _ = hand.scene.hand()
    yield from hand.go(at + 0.1 * (outwards + UP), DOWN, OPEN, near=0.03, turned=0.3)


def _close_drawer(hand: _Hand, region: str) -> Skill:
    """Push the drawer's front home with the closed fingers."""
    front, outwards, rotation = _drawer(hand.scene, region)
    yield from _face(hand, front, outwards, rotation, CLOSED)
    yield from hand.go(front - 0.3 * outwards, rotation, CLOSED, near=0.02, speed=0.8, limit=80)


def _in_drawer(scene: Scene, name: str, region: str) -> tuple[Points, float]:
    """Where an object goes in an open drawer: as far back as the cabinet above it leaves it free to fall."""
    cabinet, _, level = region.removesuffix("_region").rpartition("_")
    _, outwards, _ = _drawer(scene, region)
    drawer, centre = scene.points(cabinet, level), scene.site(region)
    rest = [scene.points(cabinet, part) for part in ("base", "top", "middle", "bottom") if part != level]
    radius = float(np.ptp(scene.points(name)[:, :2], axis=0).max()) / 2
    clear = float((np.concatenate(rest) @ outwards).max()) + radius
    shift = max(0.0, clear - float(centre @ outwards))
    return (centre + shift * outwards)[:2], float(drawer[:, 2].max()) + 0.01


def _turn_knob(hand: _Hand, stove: str) -> Skill:
    """Hold the knob from above and turn the wrist."""
    scene = hand.scene
    knob = scene.points(stove, "button")
    grip = np.array([*middle(knob)[:2], knob[:, 2].max() - 0.012])
    yield from hand.go(grip + 0.13 * UP, DOWN, OPEN, near=0.015, limit=80)
    yield from hand.go(grip, DOWN, OPEN, near=0.006, speed=0.6, limit=40)
    yield from hand.squeeze(CLOSED, GRIP_STEPS + 1)
    at, _ = scene.hand()
    for step in range(50):
        yield hand.towards(at, about_z(min(1.4, 0.05 * step)) @ DOWN, CLOSED, 1.0)
    yield from hand.squeeze(OPEN, GRIP_STEPS)
    yield from hand.go(at + 0.12 * UP, DOWN, OPEN, near=0.03, turned=0.3)
