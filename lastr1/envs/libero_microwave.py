"""Skills for LIBERO's microwave: a mug goes in by its handle, the door is pushed shut."""

import numpy as np

from lastr1.envs.libero_fixtures import facing
from lastr1.envs.libero_geometry import DOWN, Points, Scene, middle
from lastr1.envs.libero_hand import CLOSED, GRIP_STEPS, OPEN, UP, Hand, Skill

LEAN = 0.8  # rad from pointing down: the hand fits under the roof, its wrist clears what stands around
DEEP = 0.02  # m by which the mug stays short of the middle of the chamber, so that the hand stays out
AHEAD = 0.3  # rad by which the door is to be ahead of where it is
DOOR = 0.19  # m from the hinge to where the door is pushed
FACE = 0.035  # m from the hinge's axis to the fingers on the door's face


def is_microwave(name: str) -> bool:
    """Whether a fixture or one of its regions is a microwave's."""
    return name.startswith("microwave")


def put_in(hand: Hand, mug: str, region: str) -> Skill:
    """Take a mug by the handle that points away from the microwave, and carry it in level."""
    scene = hand.scene
    bar, axis = _handle(scene.points(mug))
    out = (bar - axis) * [1, 1, 0]
    out /= np.linalg.norm(out)
    rotation = facing(out, LEAN, np.pi / 2)
    yield from hand.go(bar + 0.12 * out + 0.15 * UP, rotation, OPEN, near=0.03, turned=0.3, limit=80)
    yield from hand.go(bar + 0.06 * out + 0.03 * UP, rotation, OPEN, near=0.012, turned=0.12, limit=50)
    yield from hand.go(bar, rotation, OPEN, near=0.006, speed=0.5, limit=30)
    yield from hand.squeeze(CLOSED, GRIP_STEPS + 1)
    chamber = scene.site(region)
    floor = chamber[2] - 0.07
    at, _ = hand.scene.hand()
    up = floor + 0.025 - float(scene.points(mug)[:, 2].min())
    yield from hand.go(at + up * UP, rotation, CLOSED, near=0.012, limit=40)
    for depth in (0.22, DEEP):
        _, axis = _handle(scene.points(mug))
        at, _ = scene.hand()
        target = at + ((chamber + depth * out) - axis) * [1, 1, 0]
        target[2] = at[2]
        yield from hand.go(target, rotation, CLOSED, near=0.012, speed=0.8, limit=70)
    at, _ = scene.hand()
    yield from hand.go(at - 0.02 * UP, rotation, CLOSED, near=0.008, speed=0.5, limit=15)
    yield from hand.squeeze(OPEN, GRIP_STEPS - 2)
    yield from hand.go(at + 0.15 * out, rotation, OPEN, near=0.03, limit=25)


def close_door(hand: Hand, microwave: str) -> Skill:
    """Push the door's outer face round its hinge with the closed fingers, from above."""
    scene = hand.scene
    high = float(scene.points(microwave)[:, 2].max())
    at, _ = scene.hand()
    yield from hand.go(np.array([*at[:2], high + 0.12]), DOWN, CLOSED, near=0.04, turned=0.8, limit=30)
    start = _on_door(scene, microwave, 0.0, FACE + 0.05)
    yield from hand.go(np.array([*start, high + 0.12]), DOWN, CLOSED, near=0.03, turned=0.2, limit=80)
    yield from hand.go(np.array([*start, high - 0.025]), DOWN, CLOSED, near=0.015, limit=40)
    for _ in range(120):
        target = np.array([*_on_door(scene, microwave, AHEAD, FACE), high - 0.025])
        yield hand.towards(target, DOWN, CLOSED, 0.8)


def _handle(mug: Points) -> tuple[Points, Points]:
    """The upright bar of a mug's handle [3] and the middle of the mug's foot [3]."""
    foot = middle(mug[mug[:, 2] < mug[:, 2].min() + 0.012])
    away = np.linalg.norm((mug - foot)[:, :2], axis=1)
    return middle(mug[away > away.max() - 0.012]), foot


def _on_door(scene: Scene, microwave: str, ahead: float, off: float) -> Points:
    """Where [2] the door is touched once it has turned by `ahead` (rad), `off` (m) from the hinge's plane."""
    hinge, angle, frame = scene.hinge(microwave)
    angle = min(angle + ahead, 0.15)
    along = np.array([np.cos(angle), np.sin(angle), 0.0])
    outwards = np.array([np.sin(angle), -np.cos(angle), 0.0])
    return np.asarray((hinge + frame @ (DOOR * along + off * outwards))[:2])
