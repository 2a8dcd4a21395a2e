"""What a robot (real or simulated) sees and obeys: names, order, units, rate."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Dim:
    """One entry of a state or action vector."""

    name: str
    """For example `x`, `yaw`, `gripper`; two-arm robots prefix `left_` and `right_`."""
    unit: str
    """`m`, `rad`, `open fraction` (0 closed .. 1 open), or `controller` (normalised input of it, -1..1)."""
    low: float
    high: float
    binary: bool = False
    """Encoded without statistics and decoded by a threshold (grippers: 1 = open, 0 = closed)."""


@dataclass(frozen=True, kw_only=True)
class Camera:
    """One camera of the observation, upright RGB."""

    name: str
    height: int
    """pixels"""
    width: int
    """pixels"""


@dataclass(frozen=True, kw_only=True)
class RobotSpec:
    """The contract between a policy and a robot; compared, never assumed."""

    name: str
    cameras: tuple[Camera, ...]
    state: tuple[Dim, ...]
    action: tuple[Dim, ...]
    rate: float
    """control steps per second"""
    hold: tuple[float, ...]
    """The action that keeps the robot still (in `action` units); sent when a policy is silent."""

    def __post_init__(self) -> None:
        if len(self.hold) != len(self.action):
            raise ValueError(
                f"robot {self.name!r}: hold has {len(self.hold)} entries, action has {len(self.action)}"
            )


def mismatches(a: RobotSpec, b: RobotSpec) -> list[str]:
    """Every field in which two robots differ, one line each; empty when a policy for one fits the other."""
    found = []
    for field, left in vars(a).items():
        right = vars(b)[field]
        if field in ("name", "hold"):
            continue
        if isinstance(left, tuple) and len(left) != len(right):
            found.append(f"{field}: {[x.name for x in left]} against {[x.name for x in right]}")
        elif isinstance(left, tuple):
            pairs = enumerate(zip(left, right, strict=True))
            found += [f"{field}[{i}]: {x} against {y}" for i, (x, y) in pairs if x != y]
        elif left != right:
            found.append(f"{field}: {left} against {right}")
    return found
