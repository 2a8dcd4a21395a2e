"""What is learnt from success: loss, optimizer, iterations, and what counts as a dead run."""

from dataclasses import dataclass
from typing import Literal

from lastr1.knobs import positive


@dataclass(frozen=True, kw_only=True)
class LapoConfig:
    """LAPO loss and advantages [5]."""

    clip_low: float = 0.2
    """ratios below 1 - clip_low are clipped"""
    clip_high: float = 0.28
    """ratios above 1 + clip_high are clipped"""
    action_weight: float = 1.0
    """weight of the action surrogate"""
    latent_weight: float = 0.1
    """weight of the latent surrogate"""
    stop_weight: float = 0.1
    """weight of the stop surrogate"""
    value_weight: float = 1.0
    """weight of the value loss"""
    value_clip: float | None = None
    """None: squared error; a number: half the clipped maximum of the release"""
    average: Literal["decision", "episode"] = "decision"
    """mean over all valid decisions, or per episode first (the release)"""
    reward_scale: float = 5.0
    """reward of a success"""
    discount: float = 0.99
    """gamma per decision"""
    trace: float = 0.95
    """lambda of generalised advantage estimation"""
    whiten: bool = True
    """advantages to mean 0 and variance 1 over the valid decisions of a rollout"""
    on_truncation: Literal["bootstrap", "zero"] = "bootstrap"
    """value after the step cap: the critic's, or 0"""
    advantage: Literal["gae", "grpo", "rloo"] = "gae"
    """from the critic; or, without one, from other episodes of the same start (`reinforce.group`) [8.2]"""

    clip_scope: Literal["decision", "token"] = "decision"
    """the ratio of an action that is clipped: of the whole chunk, or of every token by itself [5.3, 8.2]"""

    def __post_init__(self) -> None:
        if self.advantage != "gae" and self.value_weight:
            raise ValueError(f"advantage {self.advantage} has no critic: set value_weight 0")
        if not (0 < self.discount <= 1 and 0 <= self.trace <= 1):
            raise ValueError(f"discount {self.discount} must be in (0, 1] and trace {self.trace} in [0, 1]")
        if not 0 < self.clip_low < 1 or self.clip_high <= 0:
            raise ValueError(f"clip range [1 - {self.clip_low}, 1 + {self.clip_high}] does not contain 1")


@dataclass(frozen=True, kw_only=True)
class ThinkingConfig:
    """What thinking costs in reinforcement, and how long thoughts should be [5.1]."""

    price: float = 0.0
    """of a latent, in successes, taken from the reward of its decision (with a target: at first)"""
    target: float | None = None
    """mean latents per decision, of training episodes, that the price is to bring about (None: it stays)"""
    rate: float = 0.002
    """change of the price per iteration, for every latent that the mean is above the target or below"""

    def __post_init__(self) -> None:
        positive(self, "rate")
        if self.price < 0:
            raise ValueError(f"price must be 0 or more, not {self.price}")

    @property
    def budgeted(self) -> bool:
        """Whether latents may cost anything."""
        return self.price > 0 or self.target is not None


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW in two groups, one clip over both [5.6]."""

    lr: float = 3e-5
    """learning rate of the backbone"""
    value_lr: float = 3e-4
    """learning rate of the value head"""
    grad_clip: float = 10.0
    """largest gradient norm over all parameters"""
    ramp: int = 0
    """optimizer steps over which both rates rise from nothing: Adam's first steps know no scale yet"""
    lr_end: float = 1.0
    """final rates as a share of the peaks (cosine over the iterations of the run)"""
    micro_batch: int = 64
    """decisions per backward pass (memory, not mathematics)"""
    freeze_vision: bool = False
    """leave the vision tower as the warm-up made it (half the work of a small policy)"""
    autocast: bool = False
    """bf16 compute with fp32 master weights and fp32 log-probabilities"""
    checkpointing: bool = False
    """keep no activations inside layers: the backward pass computes them again (a third more work)"""

    def __post_init__(self) -> None:
        positive(self, "lr", "value_lr", "grad_clip", "micro_batch")


@dataclass(frozen=True, kw_only=True)
class ReinforceConfig:
    """The reinforcement job [5.5, 7.2]."""

    iterations: int = 200
    """rollout + update, repeated"""
    episodes: int = 512
    """episodes per iteration"""
    group: int = 1
    """episodes per start, each with other draws (2 or more for `lapo.advantage` grpo and rloo)"""
    skip_uniform_groups: bool = False
    """grpo and rloo: leave out groups whose returns are all equal, whose advantages are 0, so that means are
    over the others (should all be equal, none is left out)"""
    minibatches: int = 4
    """optimizer steps per pass over a rollout"""
    epochs: int = 1
    """passes over a rollout"""
    recompute_old: bool = True
    """recompute the old terms with the kernel of the update; False trusts what acting recorded, which is the
    same to rounding in fp32 [5.7]"""
    value_only_iterations: int = 0
    """first iterations that train the critic alone"""
    train_states: Literal["fresh", "benchmark"] = "fresh"
    """fresh scenes, or the stored ones that evaluation uses (the release; labelled in results)"""
    task_choice: Literal["turns", "failures"] = "turns"
    """fresh scenes: the tasks in turn, or in proportion to how often each has failed of late"""
    evaluate_every: int = 0
    """iterations between evaluations on the starts of `evaluate`, greedy as there (0: none)"""
    checkpoint_every: int = 10
    """iterations between checkpoints"""
    keep_last: int = 2
    """newest checkpoints that stay (one alone leaves nothing to fall back on should it be damaged)"""
    keep_every: int = 0
    """checkpoints of every n-th iteration stay as well (0: none); the best one always does"""
    minutes: float | None = None
    """wall-clock budget; the run ends cleanly when it is spent"""

    def __post_init__(self) -> None:
        positive(self, "iterations", "episodes", "minibatches", "epochs", "checkpoint_every", "keep_last")
        if min(self.keep_every, self.evaluate_every) < 0:
            raise ValueError(
                f"keep_every {self.keep_every} and evaluate_every {self.evaluate_every} must be 0 or more"
            )
        if self.group < 1 or self.episodes % self.group:
            raise ValueError(f"episodes {self.episodes} is not a multiple of group {self.group}")
        if self.minibatches > self.episodes:
            raise ValueError(f"minibatches {self.minibatches} must not exceed episodes {self.episodes}")


HealthLevel = Literal["note", "warn", "stop"]
HealthSign = Literal[
    "no_success", "no_advantage", "no_gradient", "still_ratios", "low_entropy", "high_entropy", "high_kl",
    "same_latents", "flat_latents", "blind_value", "fixed_stop", "lost_environments", "mismatch",
    "forgotten_task",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class HealthConfig:
    """What counts as a dead run, and what is done about it; algo/health.py describes the signs."""

    off: tuple[HealthSign, ...] = ()
    """signs that are not looked for"""
    note: tuple[HealthSign, ...] = ("blind_value", "fixed_stop", "forgotten_task")
    """signs that are mentioned; what is in none of the three lists is warned of"""
    stop: tuple[HealthSign, ...] = ("no_advantage", "no_gradient")
    """signs that end the run, with a checkpoint, when they last for two windows; warned of before"""
    window: int = 10
    """iterations that a sign must last (its median over them counts)"""
    entropy_low: float = 0.2
    """share of the first window's action entropy below which it has collapsed"""
    entropy_rise: float = 1.0
    """nats per token above the first window's action entropy at which it explodes"""
    kl: float = 0.15
    """nats per iteration at which the action policy moves too far"""
    latent_share: float = 0.1
    """share of the first window's spread or rank, below which latents have collapsed"""
    explained: float = 0.01
    """explained variance that the value must reach once in a window"""
    lost: float = 0.1
    """share of episodes that lose their simulator"""
    mismatch: float = 0.2
    """nats between recorded and recomputed action log-probability: as wide as the clip range"""

    def __post_init__(self) -> None:
        positive(self, "window")
        every = (*self.off, *self.note, *self.stop)
        twice = sorted({sign for sign in every if every.count(sign) > 1})
        if twice:
            raise ValueError(f"health: {twice[0]} stands in more than one of off, note and stop")
