"""What the camera of the embedded world sees: boxes, their shadows, painted back to front.

Light falls straight down: the shadow of a gripper, or of what it carries, lies below it on the table or on a
block, and tells its height.
"""

from itertools import combinations, pairwise

import numpy as np

from lastr1.envs.raster import Camera, Doubles, paint
from lastr1.envs.tabletop_things import (
    BIN,
    BIN_FLOOR,
    BIN_WALL,
    EPS,
    TABLE,
    ZONE,
    Arm,
    Box,
    Spot,
)
from lastr1.envs.tabletop_world import World
from lastr1.types import Floats, Image

TARGET, FOCAL = (0.0, 0.015, 0.03), 1.42
Eye = tuple[float, float, float]
EYE: Eye = (0.0, -0.5, 0.72)
"""m; where the base was taught"""
MOVED: Eye = (0.08, -0.5, 0.78)
"""m; where the target tasks are seen from, another cell than the base's"""
RGB = {
    "red": (214, 39, 40),
    "green": (44, 160, 60),
    "blue": (38, 92, 220),
    "yellow": (250, 214, 40),
    "purple": (146, 62, 196),
    "orange": (255, 132, 24),
    "wood": (196, 181, 160),
    "grain": (187, 171, 149),
    "rim": (120, 98, 76),
    "room": (122, 134, 146),
    "steel": (72, 76, 84),
    "pale": (222, 226, 232),
    "shadow": (38, 30, 24),
}
COLOR = {name: np.array(rgb, dtype=np.float32) for name, rgb in RGB.items()}
SHADOW = 0.38  # opacity
WRIST = (0.016, 0.05)  # m: half side, height of the stub above the palm
# Corners of a box are numbered x + 2 y + 4 z; the faces that a camera in front and above can see.
FACES = ((4, 5, 7, 6), (0, 1, 5, 4), (0, 4, 6, 2), (1, 3, 7, 5))
TOP, FRONT, LEFT, RIGHT = range(4)
SHADES = np.array([1.0, 0.78, 0.62, 0.62], dtype=np.float32)
CORNERS = np.array([[3 * (c >> i & 1) + i for i in range(3)] for c in range(8)])

Solid = tuple[Box, str, float]  # where, colour, opacity; a shadow is a flat box


def _behind(a: Box, b: Box, eye: float) -> bool:
    """Whether box `a` is to be painted before box `b` (they do not overlap in space); `eye`: its x in m."""
    if a[5] <= b[2] + EPS or b[5] <= a[2] + EPS:
        return a[5] <= b[2] + EPS
    if a[1] >= b[4] - EPS or b[1] >= a[4] - EPS:
        return a[1] >= b[4] - EPS
    if a[3] <= b[0] + EPS:
        return b[0] <= eye
    return a[0] >= eye


class View:
    """Pictures of a world at one size; the motionless part of the last scene is kept."""

    def __init__(self, size: int, eye: Eye = EYE) -> None:
        self.size, self.eye = size, eye
        self.camera = Camera(eye=eye, target=TARGET, focal=FOCAL, size=size)
        self.table = self._table()
        self._scene: tuple[tuple[Spot, ...], tuple[Spot, ...]] | None = None
        self._still = self.table
        self._walls: list[Solid] = []

    def image(self, world: World) -> Image:
        """The world now, [size, size, 3]."""
        if self._scene != (world.zones, world.bins):
            self._scene = (world.zones, world.bins)
            self._prepare(world)
        picture = self._still.copy()
        self._paint(picture, _moving(world), self._walls)
        return picture.astype(np.uint8)

    def _table(self) -> Floats:
        picture = np.empty((self.size, self.size, 3), dtype=np.float32)
        picture[:] = COLOR["room"]
        edge = TABLE + 0.02
        planks = np.linspace(-edge, edge, 7)
        solids: list[Solid] = [((-edge, -edge, -0.03, edge, edge, -EPS), "rim", 1.0)]
        for i, (y0, y1) in enumerate(pairwise(planks)):
            solids.append(((-edge, y0, 0.0, edge, y1, 0.0), ("wood", "grain")[i % 2], 1.0))
        self._paint(picture, solids, [], in_order=True)
        return picture

    def _prepare(self, world: World) -> None:
        """Paint zones and bins once."""
        self._still = self.table.copy()
        flat: list[Solid] = [
            ((z.x - ZONE, z.y - ZONE, 0.0, z.x + ZONE, z.y + ZONE, 0.0), z.color, 0.85) for z in world.zones
        ]
        inner = BIN - BIN_WALL
        for b in world.bins:
            floor = (b.x - inner, b.y - inner, BIN_FLOOR, b.x + inner, b.y + inner, BIN_FLOOR)
            flat += [(floor, b.color, 1.0), (floor, "shadow", 0.45)]
        self._paint(self._still, flat, [], in_order=True)
        self._walls = [(wall, b.color, 1.0) for b in world.bins for wall in b.walls()]
        self._paint(self._still, self._walls, [])

    def _paint(
        self, picture: Floats, solids: list[Solid], still: list[Solid], in_order: bool = False
    ) -> None:
        """Paint solids back to front, and again those of the motionless ones that hide part of them."""
        if not solids:
            return
        everything = solids + still
        corners: Doubles = self.camera.project(np.array([s[0] for s in everything])[:, CORNERS])
        spans = np.concatenate([corners.min(axis=1) - 1, corners.max(axis=1) + 1], axis=1).tolist()
        order = range(len(solids)) if in_order else _order(everything, spans, len(solids), self.eye[0])
        which, faces = [], []
        for i in order:
            box = everything[i][0]
            seen = [TOP]
            if box[5] > box[2]:
                seen.append(FRONT)
                if box[0] > self.eye[0]:
                    seen.append(LEFT)
                elif box[3] < self.eye[0]:
                    seen.append(RIGHT)
            which += [i] * len(seen)
            faces += seen
        polygons = corners[np.array(which)[:, None], np.array(FACES)[faces]]
        colors = [COLOR[everything[i][1]] * SHADES[f] for i, f in zip(which, faces, strict=True)]
        paint(picture, polygons, colors, [everything[i][2] for i in which])


def _order(solids: list[Solid], spans: list[list[float]], moving: int, eye: float) -> list[int]:
    """Indices of solids back to front: all moving ones, and the motionless ones in front of a moving one."""

    def behind(i: int, j: int) -> bool:
        a, b = spans[i], spans[j]
        meet = a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
        return meet and _behind(solids[i][0], solids[j][0], eye)

    chosen = list(range(moving))
    chosen += [j for j in range(moving, len(solids)) if any(behind(i, j) for i in range(moving))]
    before: dict[int, set[int]] = {i: set() for i in chosen}
    for i, j in combinations(chosen, 2):
        if behind(i, j):
            before[j].add(i)
        elif behind(j, i):
            before[i].add(j)
    order: list[int] = []
    while before:
        # A ring of boxes that hide each other cannot be ordered: the farthest goes first.
        ready = [i for i, n in before.items() if not n] or [max(before, key=lambda i: solids[i][0][1])]
        for i in ready:
            del before[i]
        for waiting in before.values():
            waiting.difference_update(ready)
        order += ready
    return order


def _moving(world: World) -> list[Solid]:
    """Bodies, grippers and shadows as boxes."""
    solids: list[Solid] = []
    for body in world.bodies:
        solids += [(box, body.color, 1.0) for box in body.boxes()]
    carried = [arm.held for arm in world.arms if arm.held is not None]
    casters = [box for body in carried for box in body.boxes()]
    grounds = [box for body in world.bodies if body not in carried for box in body.boxes()]
    for arm, color in zip(world.arms, ("steel", "pale"), strict=False):
        boxes = arm.boxes()
        casters.append(boxes[2])
        solids += [(box, color, 1.0) for box in [*boxes, _wrist(arm)]]
    for caster in casters:
        solids += _shadows(caster, grounds)
    return solids


def _wrist(arm: Arm) -> Box:
    x, y, _ = arm.at
    palm = arm.boxes()[2]
    return (x - WRIST[0], y - WRIST[0], palm[5], x + WRIST[0], y + WRIST[0], palm[5] + WRIST[1])


def _shadows(caster: Box, grounds: list[Box]) -> list[Solid]:
    """The shadow of a box on the table and on the boxes below it."""
    x0, y0, z, x1, y1, _ = caster
    found: list[Solid] = []
    if z > 2 * EPS:
        found.append(((x0, y0, EPS, x1, y1, EPS), "shadow", SHADOW))
    for ground in grounds:
        a0, b0 = max(x0, ground[0]), max(y0, ground[1])
        a1, b1 = min(x1, ground[3]), min(y1, ground[4])
        if ground[5] < z and a0 < a1 and b0 < b1:
            found.append(((a0, b0, ground[5], a1, b1, ground[5]), "shadow", SHADOW))
    return found
