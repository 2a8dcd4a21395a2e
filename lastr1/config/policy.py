"""What a policy is: its network, what a decision is, what is trained of it."""

from dataclasses import dataclass
from typing import Literal

from lastr1.knobs import positive


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Size of a Qwen3-VL built from scratch; the defaults are the tiny one that runs on a laptop."""

    size: Literal["custom", "2B", "4B", "8B"] = "custom"
    """a public size of Qwen3-VL, which overrides the knobs below, or `custom`"""
    hidden: int = 128
    """width D of the language model"""
    layers: int = 3
    """language-model layers"""
    heads: int = 4
    """query heads"""
    kv_heads: int = 2
    """key/value heads"""
    head_dim: int = 32
    """width of one head"""
    mlp: int = 384
    """width of the gated MLP"""
    vision_hidden: int = 96
    """width of the vision tower"""
    vision_layers: int = 3
    """vision-tower layers"""
    vision_heads: int = 4
    """vision-tower heads"""
    vision_mlp: int = 288
    """width of the vision MLP"""
    patch: int = 16
    """pixels per patch edge"""
    deepstack: tuple[int, ...] = (1,)
    """vision layers whose features are added to the first language layers"""

    def __post_init__(self) -> None:
        positive(self, "hidden", "layers", "heads", "kv_heads", "head_dim", "mlp", "vision_hidden", "patch")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} must be a multiple of kv_heads {self.kv_heads}")


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """What a decision is: how long it may think, how it stops, how it acts [2, 3, 4]."""

    stop_candidates: int = 4
    """K: the thought may end after each of K groups; 0 is the action-only policy"""
    latents_per_group: int = 2
    """G: latents in one group"""
    chunk: int = 8
    """C: control steps played open loop per decision"""
    temperature: float = 1.6
    """sampling temperature of actions and stop in rollouts (evaluation is greedy)"""
    latent_policy: Literal["gaussian", "deterministic"] = "gaussian"
    """how latents are drawn in rollouts, and their likelihood ratio [4]"""
    latent_noise: float = 0.05
    """standard deviation of the gaussian latent policy, relative to the RMS of the latents"""
    latent_ratio_norm: Literal["sum", "dim", "element"] = "dim"
    """divisor of the gaussian log-ratio: 1, D, or D times the latents used [4.4]"""
    latent_sigma: float = 10.0
    """sigma of the deterministic policy's ratio (Eq. 3)"""
    stop_likelihood: Literal["consistent", "released"] = "consistent"
    """likelihood of the stop: the categorical that was sampled, or the release's full vocabulary [3]"""
    eval_stop: Literal["first", "max", "mode"] = "mode"
    """stop rule at evaluation: first p >= threshold, largest p, or mode of the sampled categorical [3]"""
    stop_threshold: float = 0.99
    """threshold of the `first` rule"""
    schedule: Literal["speculative", "fused", "static", "plain"] = "speculative"
    """how slots share calls of the model while acting; the decision is the same [2.8]"""
    crop: float = 0.9
    """share of the image edge kept by the centre crop (1: none) [2.4]"""
    image: int = 256
    """pixels of the square image that the policy sees"""

    def __post_init__(self) -> None:
        positive(self, "latents_per_group", "chunk", "temperature", "latent_noise", "latent_sigma", "image")
        if self.stop_candidates < 0:
            raise ValueError(f"stop_candidates must be 0 or more, not {self.stop_candidates}")
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop must be in (0, 1], not {self.crop}")

    @property
    def latents(self) -> int:
        """L: latent slots."""
        return self.stop_candidates * self.latents_per_group


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """LoRA: matrices of low rank beside the attention projections, in place of training every weight."""

    rank: int = 0
    """rank of the matrices; 0 trains every weight, and the value head is trained in full either way"""
    alpha: float = 32.0
    """the matrices' product counts alpha / rank times"""
    vision: bool = False
    """adapt the attention of the vision tower as well"""

    def __post_init__(self) -> None:
        positive(self, "alpha")
        if self.rank < 0:
            raise ValueError(f"rank must be 0 or more, not {self.rank}")


EVERY_WEIGHT = AdapterConfig()
"""no adapter"""
