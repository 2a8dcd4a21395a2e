"""The physics of the embedded world: a table, boxes, one or two grippers; plain floats, deterministic.

A control step moves the grippers one axis after the other; what stands in the way is pushed along that axis,
chains of blocks included, or stops the gripper.  There is no inertia: what is let go rests on its support at
the end of the control step.  Nothing turns: the gripper always points down, its fingers open along x.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from lastr1.envs.tabletop_things import (
    BIN,
    BIN_FLOOR,
    BIN_HEIGHT,
    BIN_WALL,
    BLOCK,
    EPS,
    FINGER,
    OPENING,
    SIDE,
    TABLE,
    Arm,
    Body,
    Box,
    Part,
    Spot,
    distance,
    overlap,
    room,
    shove,
)

STEP = 0.03  # m travelled in one control step by an action of 1
CEILING = 0.25  # m, highest gripper tip
STROKE = 1 / 3  # open fraction travelled in one control step
GRIP_Y, GRIP_Z = 0.017, 0.02  # m, how far off the middle of a block the fingers still hold it
REST = 0.6 * SIDE  # m, how far off the middle of a block another one still rests on it
TILT = 0.08  # m, most that one end of a tray can be higher than the other
DEAD_BAND = (0.25, 0.75)  # gripper commands in between keep the last one


@dataclass(slots=True, kw_only=True, eq=False)
class World:
    """Everything that a control step changes, and the places it does not."""

    bodies: list[Body]
    arms: list[Arm]
    zones: tuple[Spot, ...] = ()
    bins: tuple[Spot, ...] = ()
    walls: list[Box] = field(init=False)
    _restless: bool = True

    def __post_init__(self) -> None:
        self.walls = [wall for bin_ in self.bins for wall in bin_.walls()]

    def copy(self) -> "World":
        """A snapshot: the same state, to be stepped on its own."""
        twins = [replace(body, at=list(body.at)) for body in self.bodies]
        arms = [
            replace(a, at=list(a.at), held=None if a.held is None else twins[self.bodies.index(a.held)])
            for a in self.arms
        ]
        return replace(self, bodies=twins, arms=arms)

    def body(self, color: str, parts: tuple[Part, ...] = BLOCK) -> Body:
        """The block (or tray) of a colour."""
        return next(b for b in self.bodies if b.color == color and b.parts is parts)

    def holders(self, body: Body) -> list[Arm]:
        """The arms that hold a body."""
        return [arm for arm in self.arms if arm.held is body]

    def step(self, action: Sequence[float]) -> None:
        """One control step: four numbers per arm (x, y, z in -1..1 and the gripper), already clipped."""
        moves = [[STEP * v for v in action[4 * i : 4 * i + 3]] for i in range(len(self.arms))]
        if len(self.arms) == 2 and self.arms[0].held is not None and self.arms[0].held is self.arms[1].held:
            # One rigid tray in two hands: they travel together, each raises its own end.
            for axis in (0, 1):
                self._travel(self.arms, axis, (moves[0][axis] + moves[1][axis]) / 2)
                moves[0][axis] = moves[1][axis] = 0.0
        for i, arm in enumerate(self.arms):
            self._travel([arm], 0, moves[i][0])
            self._travel([arm], 1, moves[i][1])
            self._raise(arm, moves[i][2])
        for i, arm in enumerate(self.arms):
            command = action[4 * i + 3]
            if not DEAD_BAND[0] < command < DEAD_BAND[1]:
                arm.command = command > 0.5
            self._open(arm) if arm.command else self._close(arm)
        self.settle()

    # Horizontal motion

    def _travel(self, arms: list[Arm], axis: int, move: float) -> None:
        """Move arms, and what they hold, along x or y as far as reach and obstacles allow."""
        for arm in arms:
            low, high = arm.reach if axis == 0 else (-TABLE, TABLE)
            move = min(max(move, low - arm.at[axis]), high - arm.at[axis])
        if move == 0.0:
            return
        boxes, moving = [], []
        for arm in arms:
            boxes += arm.boxes()
            if arm.held is not None and arm.held not in moving:
                moving.append(arm.held)
                boxes += arm.held.boxes()
        move = self._push(boxes, axis, move, moving, arms)
        for arm in arms:
            arm.at[axis] += move
        for body in moving:
            body.at[axis] += move

    def _push(
        self, boxes: list[Box], axis: int, move: float, moving: list[Body], arms: Sequence[Arm] = ()
    ) -> float:
        """Clear the way of boxes that move along x or y; returns how far they get [m, signed]."""
        free = self._free(moving)
        fixed = self._fixed(boxes, moving, arms)
        low = min(box[2] for box in boxes)
        if not fixed and all(low >= body.at[2] + body.height for body in free):
            return move
        self._restless = True
        sign = 1 if move > 0 else -1
        length = room(boxes, axis, sign, abs(move), free, fixed)
        shove(boxes, axis, sign, length, free)
        return sign * length

    def _free(self, moving: Sequence[Body] = ()) -> list[Body]:
        """The bodies that yield: those that no arm holds."""
        held = [arm.held for arm in self.arms]
        return [body for body in self.bodies if body not in held and body not in moving]

    def _fixed(self, boxes: list[Box], moving: list[Body], arms: Sequence[Arm]) -> list[Box]:
        """What does not yield: bin walls, the other arm and what it holds."""
        fixed = self.walls if self.walls and min(box[2] for box in boxes) < BIN_HEIGHT + STEP else []
        for arm in self.arms:
            if arm not in arms and arm.near(boxes) and (arm.held is None or arm.held not in moving):
                fixed = fixed + arm.boxes() + ([] if arm.held is None else arm.held.boxes())
        return fixed

    # Vertical motion

    def _raise(self, arm: Arm, move: float) -> None:
        """Move one arm up or down; downwards it stops on whatever is below."""
        move = min(max(move, -arm.at[2]), CEILING - arm.at[2])
        held = arm.held
        boxes = arm.boxes()
        if held is not None:
            part = held.parts[arm.part]
            boxes.append(held.box(part))
            if len(held.parts) > 1:
                tilt = held.tilt if part.lean else -held.tilt
                move = min(max(move, -TILT - tilt), TILT - tilt)
            move = max(move, self._floor(held) - boxes[3][2] + part.bottom)
        if move == 0.0:
            return
        sign = 1 if move > 0 else -1
        others = self._fixed(boxes, [] if held is None else [held], [arm])
        if sign < 0:
            others = others + [box for body in self._free([]) for box in body.boxes()]
        move = sign * min(abs(move), distance(boxes, others, 2, sign))
        arm.at[2] += move
        if held is not None:
            lean = held.parts[arm.part].lean
            held.at[2] += (1 - lean) * move
            held.tilt += (2 * lean - 1) * move if len(held.parts) > 1 else 0.0

    def _floor(self, body: Body) -> float:
        """Height of the table, or of the floor of the bin that a body is over [m]."""
        return BIN_FLOOR if any(bin_.offset(body) < BIN for bin_ in self.bins) else 0.0

    # Fingers

    def _open(self, arm: Arm) -> None:
        arm.held = None
        if arm.open >= 1.0:
            return
        self._restless = True
        left, right, _ = arm.boxes()
        wish = min(STROKE, 1.0 - arm.open) * OPENING
        fixed, free = self._fixed([left], [], [arm]), self._free()
        length = min(room([left], 0, -1, wish, free, fixed), room([right], 0, 1, wish, free, fixed))
        shove([left], 0, -1, length, free)
        shove([right], 0, 1, length, free)
        arm.open = min(1.0, arm.open + length / OPENING)

    def _close(self, arm: Arm) -> None:
        """Close the fingers: a body between them is centred, and held when it is gripped well enough."""
        if arm.held is not None or arm.open <= 0.0:
            return
        gap = max(arm.open - STROKE, 0.0) * OPENING
        grip: tuple[float, Body, int] | None = None
        for body, index in self._between(arm):
            part = body.parts[index]
            x, y = body.at[0] + part.x, body.at[1]
            slack = max(gap - part.half_x, 0.0)
            shift = min(max(x, arm.at[0] - slack), arm.at[0] + slack) - x
            edge = TABLE - body.half[0]
            if self.holders(body):
                arm.at[0] -= shift  # a tray in the other hand does not give way: this hand does
            elif shift != 0.0 and abs(body.at[0] + shift) <= edge:
                body.at[0] += self._push(body.boxes(), 0, shift, [body], [arm])
            gap = max(gap, part.half_x, abs(body.at[0] + part.x - arm.at[0]) + part.half_x)
            box = body.box(part)
            good = abs(y - arm.at[1]) <= GRIP_Y and abs((box[2] + box[5]) / 2 - arm.at[2]) <= GRIP_Z + EPS
            if good and gap <= part.half_x + EPS and (grip is None or abs(y - arm.at[1]) < grip[0]):
                grip = (abs(y - arm.at[1]), body, index)
        arm.open = gap / OPENING
        if grip is not None:
            arm.held, arm.part = grip[1], grip[2]

    def _between(self, arm: Arm) -> Iterable[tuple[Body, int]]:
        """The bodies (and which of their parts) that stop the fingers from closing."""
        x, y, z = arm.at
        gap = arm.open * OPENING + EPS
        for body in self.bodies:
            for index, part in enumerate(body.parts):
                box = body.box(part)
                level = box[2] < z + FINGER[2] - EPS and box[5] > z + EPS
                level = level and abs(body.at[1] - y) < part.half_y + FINGER[1] - EPS
                if level and x - gap <= box[0] and box[3] <= x + gap:
                    yield body, index

    # Gravity

    def settle(self) -> None:
        """Let everything that nobody holds come to rest."""
        if not self._restless:
            return
        # What stands on the floor stays there until something is pushed, held or released.
        self._restless = any(arm.held is not None for arm in self.arms)
        for body in sorted(self._free(), key=lambda b: b.at[2]):
            if len(body.parts) > 1:
                body.at[2] += body.tilt / 2
                body.tilt = 0.0
            self._rest(body)
        for arm in self.arms:
            if arm.held is not None and len(arm.held.parts) > 1 and len(self.holders(arm.held)) == 1:
                self._hang(arm.held, arm)

    def _hang(self, tray: Body, arm: Arm) -> None:
        """The end of a tray that nobody holds lies on the table, as far as the tilt allows."""
        lean = tray.parts[arm.part].lean
        end = tray.at[2] + lean * tray.tilt
        other = max(end - TILT, 0.0)
        tray.at[2], tray.tilt = (end, other - end) if lean == 0 else (other, end - other)

    def _rest(self, body: Body) -> None:
        """Lower a body onto its support; a block too far off its support's middle slides down beside it."""
        for axis in (0, 1):
            edge = TABLE - body.half[axis]
            body.at[axis] = min(max(body.at[axis], -edge), edge)
        for _ in range(6):
            self._enter_bin(body)
            height, support = self._support(body)
            self._restless = self._restless or support is not None
            if support is None or not self._slide(body, support):
                break
        body.at[2] = height

    def _enter_bin(self, body: Body) -> None:
        """A block whose middle is over a bin falls inside it."""
        inner = BIN - BIN_WALL
        for bin_ in self.bins:
            if len(body.parts) == 1 and bin_.offset(body) < inner:
                free = inner - SIDE / 2
                body.at[0] = min(max(body.at[0], bin_.x - free), bin_.x + free)
                body.at[1] = min(max(body.at[1], bin_.y - free), bin_.y + free)

    def _support(self, body: Body) -> tuple[float, Box | None]:
        """Height at which a body comes to rest where it is, and the box it then stands on (None: firmly)."""
        height, support = self._floor(body), None
        # A support that was just raised (a gripped block that carries another) may be a step above its load.
        limit = body.at[2] + STEP + 2 * EPS
        tops = self.walls + [b for other in self.bodies if other is not body for b in other.boxes()]
        for box in body.boxes():
            for other in tops:
                if height < other[5] <= limit and overlap(box, other):
                    height, support = other[5], other
        return height, support

    def _slide(self, body: Body, support: Box) -> bool:
        """Move a block off a support that does not carry it; False when it stays where it is."""
        if len(body.parts) > 1:
            return False
        off = [body.at[i] - (support[i] + support[i + 3]) / 2 for i in (0, 1)]
        if support not in self.walls and max(abs(v) for v in off) <= REST:
            return False
        half = [(support[i + 3] - support[i]) / 2 + SIDE / 2 for i in (0, 1)]
        axis = 0 if half[0] - abs(off[0]) < half[1] - abs(off[1]) else 1
        move = (half[axis] - abs(off[axis]) + 2 * EPS) * (1 if off[axis] >= 0 else -1)
        body.at[2] = support[5]
        box = body.boxes()
        if abs(body.at[axis] + move) > TABLE - SIDE / 2:
            return False
        moved = self._push(box, axis, move, [body])
        body.at[axis] += moved
        return abs(moved - move) < EPS
