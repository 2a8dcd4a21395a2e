"""What LeRobot may choose about a lastr1 policy; everything else is in the policy's own folder."""

from dataclasses import dataclass
from typing import NoReturn

from lerobot.configs.policies import PreTrainedConfig

FROZEN = "LeRobot does not train lastr1 policies: use lastr1 warmup, train or interact, then wrap the result"
GRIPPERS = ("lastr1", "libero", "droid")


@PreTrainedConfig.register_subclass("lastr1")
@dataclass
class Lastr1Config(PreTrainedConfig):
    """`--policy.type lastr1`."""

    checkpoint: str = ""
    """folder that lastr1 wrote, such as runs/train/last (empty: the one inside the LeRobot folder)"""
    n_action_steps: int | None = None
    """control steps of a chunk that are played before the next decision (None: all of them)"""
    max_groups: int | None = None
    """groups of latents that a thought may have at most (None: as many as the policy was taught)"""
    gripper: str = "lastr1"
    """how this robot's state and action say open and closed: lastr1 (1, 0), libero (-1, 1) or droid (0, 1)"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gripper not in GRIPPERS:
            raise ValueError(f"gripper {self.gripper!r} is none of {', '.join(GRIPPERS)}")
        for name in ("n_action_steps", "max_groups"):
            value = vars(self)[name]
            if value is not None and value < 1:
                raise ValueError(f"{name} must be 1 or more (or absent), not {value}")

    def validate_features(self) -> None:
        """Nothing: the policy compares them with its robot once it is loaded."""

    @property
    def observation_delta_indices(self) -> None:
        """One observation, the present one."""

    @property
    def action_delta_indices(self) -> None:
        """No actions are read from datasets."""

    @property
    def reward_delta_indices(self) -> None:
        """No rewards either."""

    def get_optimizer_preset(self) -> NoReturn:
        """Says where to train instead."""
        raise NotImplementedError(FROZEN)

    def get_scheduler_preset(self) -> None:
        """None."""
