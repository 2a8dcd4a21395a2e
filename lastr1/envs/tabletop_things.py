"""The things of the embedded world and their sizes: bodies, arms, zones, bins.

Everything is a set of axis-aligned boxes `(x0, y0, z0, x1, y1, z1)` in metres (x right, y away from the
camera, z up).
"""

from dataclasses import dataclass, field
from typing import TypeAlias

Box: TypeAlias = tuple[float, float, float, float, float, float]

TABLE = 0.25  # m, half side of the table top
SIDE = 0.04  # m, side of a block
OPENING = 0.04  # m, half of the free width between the open fingers
FINGER = (0.01, 0.012, 0.06)  # m: thickness along x, half width along y, height
PALM = (0.05, 0.018, 0.04)  # m: half width along x, half width along y, height
ZONE = 0.045  # m, half side of a painted zone
BIN, BIN_WALL, BIN_HEIGHT, BIN_FLOOR = (
    0.055,
    0.005,
    0.025,
    0.003,
)  # m: half outer side, thickness, height, floor
POST = 0.1  # m, from the middle of a tray to its handles
FAR = 1e9
EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class Part:
    """One box of a body, relative to its position (middle of its underside)."""

    x: float = 0.0
    half_x: float
    half_y: float
    bottom: float = 0.0
    top: float
    lean: float = 0.0
    """Share of the body's tilt by which this part is raised."""


BLOCK = (Part(half_x=SIDE / 2, half_y=SIDE / 2, top=SIDE),)
TRAY = (
    Part(x=-POST, half_x=0.015, half_y=0.02, bottom=0.012, top=0.05),
    Part(x=POST, half_x=0.015, half_y=0.02, bottom=0.012, top=0.05, lean=1.0),
    Part(half_x=0.12, half_y=0.03, top=0.012, lean=0.5),
)


@dataclass(slots=True, kw_only=True, eq=False)
class Body:
    """Something that can be pushed and gripped: a block or a tray."""

    color: str
    at: list[float]
    """Middle of its underside [m]; for a tray, z is that of its left end."""
    parts: tuple[Part, ...] = BLOCK
    tilt: float = 0.0
    """Right end minus left end [m]; 0 for blocks."""
    half: tuple[float, float] = field(init=False)
    """Half its extent along x and y [m]."""
    height: float = field(init=False)

    def __post_init__(self) -> None:
        self.half = (max(abs(p.x) + p.half_x for p in self.parts), max(p.half_y for p in self.parts))
        self.height = max(part.top for part in self.parts)

    def box(self, part: Part) -> Box:
        """Where one of its parts is."""
        x, y, z = self.at
        x += part.x
        z += part.lean * self.tilt
        return (
            x - part.half_x,
            y - part.half_y,
            z + part.bottom,
            x + part.half_x,
            y + part.half_y,
            z + part.top,
        )

    def boxes(self) -> list[Box]:
        """Where all of its parts are."""
        return [self.box(part) for part in self.parts]


@dataclass(slots=True, kw_only=True, eq=False)
class Arm:
    """A gripper: where its tip is, how far it is open, what it holds."""

    at: list[float]
    reach: tuple[float, float]
    """Smallest and largest x [m]."""
    open: float = 1.0
    """1 open (8 cm between the fingers) .. 0 closed."""
    command: bool = True
    """The last gripper command: True to open."""
    held: Body | None = None
    part: int = 0
    """Which part of `held` is between the fingers."""

    def boxes(self) -> list[Box]:
        """Left finger, right finger, palm."""
        x, y, z = self.at
        gap = self.open * OPENING
        thick, wide, high = FINGER
        top = z + high
        return [
            (x - gap - thick, y - wide, z, x - gap, y + wide, top),
            (x + gap, y - wide, z, x + gap + thick, y + wide, top),
            (x - PALM[0], y - PALM[1], top, x + PALM[0], y + PALM[1], top + PALM[2]),
        ]

    def near(self, boxes: list[Box]) -> bool:
        """Whether boxes may meet this arm, or what it holds, in the next control step."""
        x, y, _ = self.at
        wide = PALM[0] + SIDE + (0.0 if self.held is None else 2 * self.held.half[0])
        deep = 2 * SIDE
        return any(b[0] < x + wide and b[3] > x - wide and b[1] < y + deep and b[4] > y - deep for b in boxes)


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A coloured place on the table: the middle of a zone or of a bin [m]."""

    color: str
    x: float
    y: float

    def offset(self, body: Body) -> float:
        """How far a body's middle is from this one along the worse axis [m]."""
        return max(abs(body.at[0] - self.x), abs(body.at[1] - self.y))

    def walls(self) -> tuple[Box, Box, Box, Box]:
        """The walls of a bin that stands here: far, left, right, near."""
        x0, x1, y0, y1, t = self.x - BIN, self.x + BIN, self.y - BIN, self.y + BIN, BIN_WALL
        return (
            (x0 + t, y1 - t, 0.0, x1 - t, y1, BIN_HEIGHT),
            (x0, y0, 0.0, x0 + t, y1, BIN_HEIGHT),
            (x1 - t, y0, 0.0, x1, y1, BIN_HEIGHT),
            (x0 + t, y0, 0.0, x1 - t, y0 + t, BIN_HEIGHT),
        )


def gap_between(box: Box, other: Box, axis: int, sign: int) -> float:
    """Distance that `box` can travel along an axis before it meets `other`; FAR when it never does."""
    u, v = (axis + 1) % 3, (axis + 2) % 3
    if box[u + 3] <= other[u] + EPS or other[u + 3] <= box[u] + EPS:
        return FAR
    if box[v + 3] <= other[v] + EPS or other[v + 3] <= box[v] + EPS:
        return FAR
    gap = other[axis] - box[axis + 3] if sign > 0 else box[axis] - other[axis + 3]
    return FAR if gap < -2 * EPS else max(gap, 0.0)


def overlap(a: Box, b: Box) -> bool:
    """Whether two boxes overlap seen from above."""
    across = a[0] < b[3] - EPS and b[0] < a[3] - EPS
    return across and a[1] < b[4] - EPS and b[1] < a[4] - EPS


def distance(boxes: list[Box], others: list[Box], axis: int, sign: int) -> float:
    """The smallest `gap_between` any of `boxes` and any of `others`."""
    nearest = FAR
    for box in boxes:
        for other in others:
            gap = gap_between(box, other, axis, sign)
            if gap < nearest:
                nearest = gap
    return nearest


def room(boxes: list[Box], axis: int, sign: int, length: float, free: list[Body], fixed: list[Box]) -> float:
    """How far boxes can move along x or y (at most `length`) when free bodies in the way are pushed ahead.

    What is pushed pushes in turn, stops at the edge of the table, and at `fixed` boxes.
    """
    length = min(length, distance(boxes, fixed, axis, sign))
    for body in free:
        gap = distance(boxes, body.boxes(), axis, sign)
        if gap < length:
            edge = max(TABLE - body.half[axis] - sign * body.at[axis], 0.0)
            others = [b for b in free if b is not body]
            length = gap + room(body.boxes(), axis, sign, min(length - gap, edge), others, fixed)
    return length


def shove(boxes: list[Box], axis: int, sign: int, length: float, free: list[Body]) -> None:
    """Push ahead what stands in the way of boxes that are about to move by `length`, which `room` allows."""
    for body in free:
        gap = distance(boxes, body.boxes(), axis, sign)
        if gap < length:
            shove(body.boxes(), axis, sign, length - gap, [b for b in free if b is not body])
            body.at[axis] += sign * (length - gap)
