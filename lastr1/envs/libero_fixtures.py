"""Skills for what stands in LIBERO's scenes: drawers opened and pushed shut, the stove's knob turned."""

import numpy as np

from lastr1.envs.libero_geometry import DOWN, Points, Scene, about_x, about_z, middle, rotation_vector
from lastr1.envs.libero_hand import CLOSED, GRIP_STEPS, OPEN, UP, Hand, Skill
from lastr1.types import Floats

HALF_TURN = np.diag([-1.0, -1.0, 1.0])  # of the hand about its own axis; its two fingers are alike
LEAN = 0.6  # rad by which the hand leans back from the drawer it pushes, clear of the cabinet's other handles
SNUG = 0.012  # m by which a falling object may graze the handles above its drawer


def open_drawer(hand: Hand, region: str) -> Skill:
    """Take the handle from the front and pull."""
    handle, outwards = _front(hand.scene, region)
    rotation = facing(outwards, np.pi / 2, 0.0)
    yield from _approach(hand, handle + 0.13 * outwards, rotation, OPEN)
    yield from hand.go(handle + 0.002 * outwards, rotation, OPEN, speed=0.5, limit=40)
    yield from hand.squeeze(CLOSED, GRIP_STEPS + 1)
    yield from hand.go(handle + 0.2 * outwards, rotation, CLOSED, near=0.02, speed=0.8)
    yield from hand.squeeze(OPEN, GRIP_STEPS)
    at, _ = hand.scene.hand()
    yield from hand.go(at + 0.1 * (outwards + UP), DOWN, OPEN, near=0.03, turned=0.3)


def close_drawer(hand: Hand, region: str) -> Skill:
    """Push the drawer's front home with the closed fingers, from above and in front."""
    front, outwards = _front(hand.scene, region)
    rotation = facing(outwards, LEAN, np.pi / 2)
    yield from _approach(hand, front + 0.06 * outwards, rotation, CLOSED)
    yield from hand.go(front - 0.3 * outwards, rotation, CLOSED, near=0.02, speed=0.8, limit=80)


def in_drawer(scene: Scene, name: str, region: str) -> tuple[Points, float]:
    """Where an object goes in an open drawer: as far back as the cabinet above it leaves it free to fall.

    Middle [2] and height of the underside.
    """
    cabinet, level = _parts(region)
    _, outwards = _front(scene, region)
    drawer, centre = scene.points(cabinet, level), scene.site(region)
    rest = [scene.points(cabinet, part) for part in ("base", "top", "middle", "bottom") if part != level]
    radius = float(np.ptp(scene.points(name)[:, :2], axis=0).max()) / 2 - SNUG
    clear = float((np.concatenate(rest) @ outwards).max()) + radius
    shift = max(0.0, clear - float(centre @ outwards))
    return (centre + shift * outwards)[:2], float(drawer[:, 2].max()) + 0.01


def turn_knob(hand: Hand, stove: str) -> Skill:
    """Hold the knob from above and turn the wrist."""
    scene = hand.scene
    knob = scene.points(stove, "button")
    grip = np.array([*middle(knob)[:2], knob[:, 2].max() - 0.012])
    yield from hand.go(grip + 0.13 * UP, DOWN, OPEN, near=0.015, limit=80)
    yield from hand.go(grip, DOWN, OPEN, near=0.006, speed=0.6, limit=40)
    yield from hand.squeeze(CLOSED, GRIP_STEPS + 1)
    at, _ = scene.hand()
    for step in range(50):
        yield _turning(hand, at, 0.05 * step)
    yield from hand.squeeze(OPEN, GRIP_STEPS)
    yield from hand.go(at + 0.12 * UP, DOWN, OPEN, near=0.03, turned=0.3)


def _turning(hand: Hand, at: Points, angle: float) -> Floats:
    return hand.towards(at, about_z(min(1.4, angle)) @ DOWN, CLOSED, 1.0)


def _parts(region: str) -> tuple[str, str]:
    """Cabinet and level of `wooden_cabinet_1_top_region`."""
    cabinet, _, level = region.removesuffix("_region").rpartition("_")
    return cabinet, level


def _front(scene: Scene, region: str) -> tuple[Points, Points]:
    """A drawer's handle [3] and the direction in which it opens [3]."""
    cabinet, level = _parts(region)
    outwards = -scene.joint_axis(cabinet, level)  # LIBERO's drawers open along the negative axis
    drawer = scene.points(cabinet, level)
    depth = drawer @ outwards
    return middle(drawer[depth > depth.max() - 0.015]), outwards


def facing(outwards: Points, lean: float, yaw: float) -> Points:
    """The hand [3, 3] in front of a drawer, its fingers `lean` (rad) from down towards the drawer.

    `yaw` turns it about its own axis.  Of the two ways to turn the wrist, the one nearer to pointing down.
    """
    towards = about_z(float(np.arctan2(outwards[1], outwards[0])) - np.pi / 2)
    facing = towards @ about_x(-lean) @ about_z(yaw) @ DOWN
    both = (facing, facing @ HALF_TURN)
    return min(both, key=lambda r: float(np.linalg.norm(rotation_vector(r @ DOWN.T))))


def _approach(hand: Hand, before: Points, rotation: Points, gripper: float) -> Skill:
    """Up, over and down to a place in front of a drawer."""
    at, _ = hand.scene.hand()
    up = np.array([at[0], at[1], max(at[2], before[2] + 0.1)])
    yield from hand.go(up, DOWN, gripper, near=0.03, turned=0.5, limit=15)
    yield from hand.go(before + 0.12 * UP, rotation, gripper, near=0.03, turned=0.25, limit=70)
    yield from hand.go(before, rotation, gripper, near=0.015, turned=0.12, limit=50)
