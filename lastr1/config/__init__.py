"""Every knob of the system, a page for each subject.  Frozen, validated, standard library only.

Letters in the help: K stop candidates, G latents per group, L = K*G latent slots, C control steps per chunk.
Sections in brackets refer to docs/ALGORITHM.md.
"""

from dataclasses import dataclass, field

from lastr1.config.policy import EVERY_WEIGHT, AdapterConfig, BackboneConfig, PolicyConfig
from lastr1.config.reinforcement import (
    HealthConfig,
    HealthLevel,
    HealthSign,
    LapoConfig,
    OptimizerConfig,
    ReinforceConfig,
    ThinkingConfig,
)
from lastr1.config.robots import DriveConfig, InteractiveConfig, LimitsConfig, RobotConfig, ServeConfig
from lastr1.config.scale import ClusterConfig, PlanConfig
from lastr1.config.teaching import GroundingConfig, Target, WarmupConfig
from lastr1.config.worlds import ChaosConfig, CollectConfig, EnvConfig, EvaluateConfig

__all__ = [
    "EVERY_WEIGHT",
    "AdapterConfig",
    "BackboneConfig",
    "ChaosConfig",
    "ClusterConfig",
    "CollectConfig",
    "Config",
    "DriveConfig",
    "EnvConfig",
    "EvaluateConfig",
    "GroundingConfig",
    "HealthConfig",
    "HealthLevel",
    "HealthSign",
    "InteractiveConfig",
    "LapoConfig",
    "LimitsConfig",
    "OptimizerConfig",
    "PlanConfig",
    "PolicyConfig",
    "ReinforceConfig",
    "RobotConfig",
    "ServeConfig",
    "Target",
    "ThinkingConfig",
    "WarmupConfig",
]


@dataclass(frozen=True, kw_only=True)
class Config:
    """One experiment."""

    name: str
    """recipe it came from"""
    seed: int = 0
    """every random draw of a run follows from it"""
    device: str = "auto"
    """where the policy computes: `cpu`, `cuda`, `cuda:1`, ..., or `auto` (a GPU if there is one)"""
    threads: int = 2
    """CPU threads for torch, shared by the processes"""
    processes: int = 1
    """policy processes that play and learn side by side (for a small policy 2 of 1 thread beat 1 of 2)"""
    base: str = "builtin"
    """what the warm-up starts from: `builtin`, `scratch` or a checkpoint directory"""
    env: EnvConfig = field(default_factory=EnvConfig)
    chaos: ChaosConfig = field(default_factory=ChaosConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    collect: CollectConfig = field(default_factory=CollectConfig)
    grounding: GroundingConfig = field(default_factory=GroundingConfig)
    warmup: WarmupConfig = field(default_factory=WarmupConfig)
    lapo: LapoConfig = field(default_factory=LapoConfig)
    thinking: ThinkingConfig = field(default_factory=ThinkingConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    reinforce: ReinforceConfig = field(default_factory=ReinforceConfig)
    interactive: InteractiveConfig = field(default_factory=InteractiveConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
    health: HealthConfig = field(default_factory=HealthConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    serve: ServeConfig = field(default_factory=ServeConfig)
    robot: RobotConfig = field(default_factory=RobotConfig)
    drive: DriveConfig = field(default_factory=DriveConfig)

    def __post_init__(self) -> None:
        if self.lapo.advantage != "gae" and self.reinforce.group < 2:
            raise ValueError(
                f"lapo.advantage {self.lapo.advantage} compares episodes of one start: "
                f"set reinforce.group to 2 or more, not {self.reinforce.group}"
            )
        if self.reinforce.skip_uniform_groups and self.lapo.advantage == "gae":
            raise ValueError("reinforce.skip_uniform_groups is for lapo.advantage grpo and rloo")
        self._check_thinking()
        if self.env.workers == 0 and (self.chaos.kill or self.chaos.hang):
            raise ValueError(
                "chaos.kill and chaos.hang end a simulator's process: set env.workers to 1 or more"
            )

    def _check_thinking(self) -> None:
        target, group = self.thinking.target, self.policy.latents_per_group
        if self.thinking.budgeted and self.lapo.advantage == "grpo":
            raise ValueError(
                "thinking: grpo divides by a group's deviation, so where all succeed or all fail any price "
                "weighs the same: set lapo.advantage to rloo or gae"
            )
        if target is not None and not group < target < self.policy.latents:
            raise ValueError(
                f"thinking.target {target} must lie between {group} and {self.policy.latents} latents, the "
                f"shortest and the longest thought"
            )
