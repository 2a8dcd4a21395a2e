"""What an arm may be asked to do, enforced on the robot's side.

One invariant carries everything: for every arm the limiter holds a *braking plan*, moves that end at rest and
break no limit when they are played from now on.  A wanted move is granted only together with a new plan that
begins with it; otherwise the largest share of it that has one; otherwise the next move of the old plan.
Whatever is wanted, and whenever commands stop coming, the arms come to rest inside the limits.

Units are moves: m and rad per control step, in the frame of each arm's base.
Axes: R arms, J joints, A = 7 R action size, K control steps of a plan, S shares, N braking lengths.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lastr1.config import LimitsConfig
from lastr1.serve.arm import turned
from lastr1.serve.braking import SLACK, Doubles, Verdict, between, braking_weights, within
from lastr1.types import Floats, UserError

MOVES = 6
"""x y z (m) and the rotation vector rx ry rz (rad)"""
PER_ARM = MOVES + 1
"""with the gripper"""
SHARES = np.array([1.0, 0.9, 0.75, 0.5, 0.25, 0.1, 0.0])
"""of the way from the next braking move to the wanted one"""
DYNAMICS = ("speed", "acceleration", "jerk")
INWARD = 0.9
"""a joint outside its limits, or an arm that lags too far, may only move when this share of it is left"""


@dataclass(frozen=True, kw_only=True)
class Executed:
    """What was done with a wanted action."""

    action: Floats
    """[A] what the robot was really told, in the units of `RobotSpec.action`"""
    clipped: tuple[str, ...]
    """the limits that changed it; empty when `action` is what was wanted"""


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Where one arm is now, as measured, and where small moves of the tool take its joints."""

    position: Doubles
    """[3] m, of the tool"""
    joints: Doubles
    """[J] rad"""
    per_move: Doubles
    """[J, 6] rad per m and rad: a pseudo-inverse of the Jacobian"""


@dataclass(frozen=True, kw_only=True)
class Mount:
    """What does not change while an arm moves."""

    base: tuple[float, float, float, float]
    """where its base stands: x, y, z (m) and yaw (rad) in a frame that all arms share"""
    joint_low: Doubles
    """[J] rad"""
    joint_high: Doubles
    """[J] rad"""


@dataclass(frozen=True, kw_only=True)
class Stance:
    """How an arm stands before the first command."""

    position: Doubles
    """[3] m, of the tool"""
    rotation: Doubles
    """[3, 3] how far the tool is turned from the orientation that counts as upright"""
    joints: Doubles
    """[J] rad"""
    gripper: float
    """open fraction"""


class _Arm:
    """One arm as far as it was commanded; units are moves."""

    def __init__(self, mount: Mount, stance: Stance, limits: LimitsConfig, steps: int) -> None:
        x, y, z, yaw = mount.base
        cos, sin = np.cos(yaw), np.sin(yaw)
        self._turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        self._shift = np.array([x, y, z])
        self.joint_low = mount.joint_low + limits.joint_margin
        self.joint_high = mount.joint_high - limits.joint_margin
        self.position, self.rotation, self.gripper = stance.position, stance.rotation, stance.gripper
        self.plan = np.zeros((steps, MOVES))
        """[K, 6] moves that bring it to rest"""
        self.last = self.before = self.plan[0]
        """[6] the last move and the one before it"""
        self.patience = 0
        """control steps until the gripper may take another target"""

    def advance(self) -> None:
        """Play the first move of the plan."""
        self.before, self.last = self.last, self.plan[0]
        self.position = self.position + self.last[:3]
        self.rotation = turned(self.last[3:]) @ self.rotation
        self.plan = np.concatenate([self.plan[1:], np.zeros((1, MOVES))])
        self.patience = max(0, self.patience - 1)

    def path(self, plans: Doubles) -> Doubles:
        """Where plans [..., K, 6] take the tool: [..., K, 3] m, in the frame that all arms share."""
        path: Doubles = (self.position + np.cumsum(plans[..., :3], axis=-2)) @ self._turn.T + self._shift
        return path


class Limiter:
    """Clips the actions of R arms; one call per control step."""

    def __init__(
        self, limits: LimitsConfig, *, rate: float, mounts: Sequence[Mount], stances: Sequence[Stance]
    ) -> None:
        """`rate`: control steps per second.  `UserError` when an arm stands outside of the limits."""
        self._limits, self._low, self._high = limits, np.array(limits.low), np.array(limits.high)
        linear = (limits.speed, limits.acceleration, limits.jerk)
        angular = (limits.turn_speed, limits.turn_acceleration, limits.turn_jerk)
        self._bounds = np.array([linear, angular]).T / rate ** np.array([[1], [2], [3]])
        """[speed | acceleration | jerk, linear | angular]"""
        self._joint_speed = limits.joint_speed / rate
        self._pause = int(np.ceil(limits.gripper_pause * rate))
        self._weights = braking_weights(self._bounds)
        steps = self._weights.shape[1]
        self._arms = [_Arm(m, s, limits, steps) for m, s in zip(mounts, stances, strict=True)]
        for number, (arm, stance) in enumerate(zip(self._arms, stances, strict=True)):
            self._refuse(number, arm, stance.joints)

    @property
    def positions(self) -> Doubles:
        """[R, 3] m: where the tools were told to be."""
        return np.stack([arm.position for arm in self._arms])

    @property
    def rotations(self) -> Doubles:
        """[R, 3, 3]: how far the tools were told to turn from upright."""
        return np.stack([arm.rotation for arm in self._arms])

    @property
    def still(self) -> Floats:
        """[A] the action that asks every arm to stay and every gripper to keep what it has."""
        return np.array([[0.0] * MOVES + [arm.gripper] for arm in self._arms], np.float32).ravel()

    def clip(self, action: Floats, reach: Sequence[Reach]) -> Executed:
        """Grant an action [A], or what is possible of it; any numbers are taken, NaN too."""
        rows = action.astype(np.float64).reshape(len(self._arms), PER_ARM)
        clipped: list[str] = []
        for arm, now, row in zip(self._arms, reach, rows, strict=True):
            arm.plan, names = self._grant(arm, now, row[:MOVES])
            clipped += names + self._grip(arm, row[MOVES])
        granted = [np.append(arm.plan[0], arm.gripper) for arm in self._arms]
        for arm in self._arms:
            arm.advance()
        return Executed(
            action=np.concatenate(granted).astype(np.float32), clipped=tuple(dict.fromkeys(clipped))
        )

    def skip(self) -> None:
        """A control step passed without a command: the arms braked along their plans."""
        for arm in self._arms:
            arm.advance()

    def _refuse(self, number: int, arm: _Arm, joints: Doubles) -> None:
        low, high = self._limits.low, self._limits.high
        if np.any(arm.position < low) or np.any(arm.position > high):
            raise UserError(
                f"arm {number} stands at {np.round(arm.position, 3).tolist()} m, outside of the workspace "
                f"{low} to {high}: move it by hand, or widen limits.low and limits.high"
            )
        angle = float(np.arccos(np.clip((np.trace(arm.rotation) - 1) / 2, -1, 1)))
        if angle > self._limits.tilt:
            raise UserError(
                f"the tool of arm {number} is turned by {angle:.2f} rad, more than limits.tilt "
                f"{self._limits.tilt}: turn it by hand, or raise that limit"
            )
        for joint in np.flatnonzero((joints < arm.joint_low) | (joints > arm.joint_high)):
            raise UserError(
                f"joint {joint + 1} of arm {number} stands at {joints[joint]:.3f} rad, outside of "
                f"{arm.joint_low[joint]:.3f} to {arm.joint_high[joint]:.3f}: move it by hand, or lower "
                "limits.joint_margin"
            )
        if not self._apart(arm, arm.plan).all():
            raise UserError(
                f"the arms stand closer than limits.apart {self._limits.apart} m: move one by hand"
            )

    def _grant(self, arm: _Arm, now: Reach, wanted: Doubles) -> tuple[Doubles, list[str]]:
        """A plan [K, 6] that begins with what is granted, and the limits that changed the wanted move [6]."""
        move, names = self._project(arm, wanted)
        ways = arm.plan[0] + SHARES[:, None] * (move - arm.plan[0])
        ways[0] = move
        after, last = self._weights[..., :1], self._weights[..., 1:]
        plans = ways[:, None, None, :] * after + arm.last * last  # [S, N, K, 6]
        checks = self._checks(arm, now, plans)
        fine = np.logical_and.reduce(list(checks.values()))  # [S, N]
        share = int(np.argmax(fine.any(axis=1)))
        if share or not fine[0].any():
            names = names + _reasons(checks)
        if not fine[share].any():
            return arm.plan, names
        return plans[share, int(np.argmax(fine[share]))], names

    def _project(self, arm: _Arm, wanted: Doubles) -> tuple[Doubles, list[str]]:
        """The wanted move [6] within speed, acceleration and jerk, each a ball, so that directions stay."""
        if not np.isfinite(wanted).all():
            return self._project(arm, np.zeros(MOVES))[0], ["not finite"]
        move, names = wanted.copy(), []
        for kind, part in enumerate((slice(0, 3), slice(3, 6))):
            last, before = arm.last[part], arm.before[part]
            centres = (np.zeros(3), last, 2 * last - before)
            for name, centre, bound in zip(DYNAMICS, centres, self._bounds[:, kind], strict=True):
                away = np.clip(move[part] - centre, -1e9, 1e9)  # so that squares stay finite
                length = np.sqrt(away @ away)
                if length > bound * SLACK:
                    move[part] = centre + away * (bound / length)
                    names.append(("", "turn ")[kind] + name)
        return move, names

    def _checks(self, arm: _Arm, now: Reach, plans: Doubles) -> dict[str, Verdict]:
        """Limit -> which of the plans [S, N, K, 6] keep it, [S, N]."""
        past = np.broadcast_to(np.stack([arm.before, arm.last]), (*plans.shape[:2], 2, MOVES))
        changes = np.diff(np.concatenate([past, plans], axis=2), axis=2)
        moved = np.cumsum(plans, axis=2)
        places = arm.position + moved[..., :3]
        turns = plans @ now.per_move.T
        joints = now.joints + np.cumsum(turns, axis=2)
        low = arm.joint_low - INWARD * np.maximum(0, arm.joint_low - now.joints)
        high = arm.joint_high + INWARD * np.maximum(0, now.joints - arm.joint_high)
        return {
            "speed": within(plans, self._bounds[0]),
            "acceleration": within(changes[:, :, 1:], self._bounds[1]),
            "jerk": within(np.diff(changes, axis=2), self._bounds[2]),
            "lag": self._near(arm, now, places),
            "workspace": between(self._low, places, self._high),
            "tilt": self._upright(arm, plans),
            "joint": between(low, joints, high),
            "joint speed": between(-self._joint_speed, turns, self._joint_speed),
            "arms": self._apart(arm, plans),
        }

    def _near(self, arm: _Arm, now: Reach, places: Doubles) -> Verdict:
        """Whether places [S, N, K, 3] stay near where the tool is: a blocked or slow arm is not pushed on."""
        behind = arm.position - now.position
        most = max(self._limits.lag, INWARD * float(np.sqrt(behind @ behind)))
        away = places - now.position
        return np.asarray((np.einsum("...i,...i", away, away) <= most**2).all(axis=2))

    def _upright(self, arm: _Arm, plans: Doubles) -> Verdict:
        """Whether the tool turns too far from upright in plans [S, N, K, 6], [S, N].

        The first move counts exactly, those that brake as if each turned straight away from upright.
        """
        first = turned(plans[:, 0, 0, 3:]) @ arm.rotation  # [S, 3, 3]: no length changes the first move
        cosine = np.clip((np.trace(first, axis1=1, axis2=2) - 1) / 2, -1, 1)
        braking = np.linalg.norm(plans[:, :, 1:, 3:], axis=-1).sum(axis=-1)
        fine: Verdict = np.arccos(cosine)[:, None] + braking <= self._limits.tilt
        return fine

    def _apart(self, arm: _Arm, plans: Doubles) -> Verdict:
        """Whether plans [..., K, 6] keep the tool away from the plans of the other arms, [...]."""
        path = arm.path(plans)
        fine = np.ones(plans.shape[:-2], bool)
        for other in self._arms:
            if other is not arm:
                gap = path - other.path(other.plan)
                fine &= (np.einsum("...i,...i", gap, gap) >= self._limits.apart**2).all(axis=-1)
        return fine

    def _grip(self, arm: _Arm, wanted: float) -> list[str]:
        """Set the gripper's target; another one has to wait for the pause."""
        target = float(np.clip(wanted, 0, 1)) if np.isfinite(wanted) else arm.gripper
        if target != arm.gripper and not arm.patience:
            arm.gripper, arm.patience = target, self._pause
        return ["gripper"] if arm.gripper != wanted else []


def _reasons(checks: Mapping[str, Verdict]) -> list[str]:
    """The limits that stand against the whole wanted move, with the quickest braking that the arm can do."""
    able = np.logical_and.reduce([checks[name][0] for name in DYNAMICS])
    if not able.any():
        return [name for name in DYNAMICS if not checks[name][0].any()]
    quickest = int(np.argmax(able))
    return [name for name, fine in checks.items() if not fine[0, quickest]]
