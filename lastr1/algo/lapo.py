"""Latent-to-Action Policy Optimization: three clipped surrogates sharing one advantage, and a value loss.

Axes: B decisions, N action tokens, L latent slots, D latent width, E episodes, T decisions per episode
(padded at the end).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lastr1.algo.logprob import LatentDistribution
from lastr1.config import LapoConfig

PAPER = LapoConfig()
"""L_action + 0.1 L_stop + 0.1 L_latent + L_value (ALGORITHM.md 5.4)."""
RELEASED = LapoConfig(
    action_weight=56 / 57, stop_weight=1 / 57, value_clip=0.2, average="episode", on_truncation="zero"
)
"""The objective of the authors' code: the stop is one of 57 tokens, and the value is clipped."""


@dataclass(frozen=True, kw_only=True)
class PolicyTerms:
    """What the loss knows of a decision: one type for the policy that acted and the one being trained."""

    token_logp: Float[Tensor, "B N"]
    """Nats, of every action token."""
    stop_logp: Float[Tensor, "B"]
    """Nats; 0 without a thought."""
    latent: Float[Tensor, "B L D"]
    """Predicted means, not what was fed."""
    latent_used: Bool[Tensor, "B L"]
    """slot < latents per group * groups; all False without a thought."""
    value: Float[Tensor, "B"]
    """Discounted reward to come."""

    @property
    def action_logp(self) -> Float[Tensor, "B"]:
        """Nats, of the whole chunk: tokens are independent given the thought."""
        return self.token_logp.sum(-1)


@dataclass(frozen=True, kw_only=True)
class LapoLoss:
    """`total` carries the gradient; `parts` are figures without one (see `lapo_loss`)."""

    total: Float[Tensor, ""]
    parts: dict[str, Float[Tensor, ""]]


def decision_weights(
    valid: Bool[Tensor, "E T"], average: Literal["decision", "episode"]
) -> Float[Tensor, "E T"]:
    """Weight of every decision of a whole minibatch (all ranks): sums to 1 over `valid`, 0 elsewhere.

    `decision`: 1 / (valid decisions).  `episode` (the release): 1 / (episodes * decisions of that episode),
    so short episodes count as much as long ones.
    """
    if average == "decision":
        return valid / valid.sum().clamp(min=1)
    length = valid.sum(1, keepdim=True)
    return valid / (length.clamp(min=1) * (length > 0).sum().clamp(min=1))


def merge_parts(a: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, Tensor]:
    """The figures of two micro-batches as those of one: sums, and maxima for the names that end in `_max`."""
    return {k: torch.maximum(a[k], b[k]) if k.endswith("_max") else a[k] + b[k] for k in a}


def lapo_loss(
    config: LapoConfig,
    latent_policy: LatentDistribution,
    z: Float[Tensor, "B L D"],
    old: PolicyTerms,
    new: PolicyTerms,
    advantage: Float[Tensor, "B"],
    target: Float[Tensor, "B"],
    weight: Float[Tensor, "B"],
) -> LapoLoss:
    """LAPO over B decisions (ALGORITHM.md 5.3, 5.4).

    `z` is what was fed back while thinking; `advantage`, `target` and everything in `old` are constants.
    `weight` comes from `decision_weights` over the *whole* minibatch, so totals, gradients and parts of
    micro-batches add up (`merge_parts`).  A decision without used latents has no stop and no latent term.

    parts: `{action,stop,latent,value}_loss` (before the config's weights); for action, stop and latent
    `_clipped` (share where the clip acts), `_approx_kl` (nats, mean of e^l - 1 - l) and `_ratio_max` (largest
    of ratio and 1 / ratio); `value_clipped`; `latent_kl` (nats), `latent_rho` (RMS move of the means in
    sigmas) and `latent_cosine` (of new and old means).
    """
    thinking = weight * old.latent_used.any(-1)
    latent_log_ratio = latent_policy.log_ratio(z, old.latent, new.latent, old.latent_used)
    if config.clip_scope == "token":
        action, action_parts = _by_token(config, new.token_logp - old.token_logp, advantage, weight)
    else:
        log_ratio = new.action_logp - old.action_logp
        action, action_parts = _surrogate(config, "action", log_ratio, advantage, weight)
    stop, stop_parts = _surrogate(config, "stop", new.stop_logp - old.stop_logp, advantage, thinking)
    latent, latent_parts = _surrogate(config, "latent", latent_log_ratio, advantage, thinking)
    value, value_parts = _value_loss(config, old.value, new.value, target, weight)
    total = (
        config.action_weight * action
        + config.stop_weight * stop
        + config.latent_weight * latent
        + config.value_weight * value
    )
    move_parts = _latent_move(latent_policy, old, new, thinking)
    return LapoLoss(total=total, parts=action_parts | stop_parts | latent_parts | value_parts | move_parts)


def _by_token(
    config: LapoConfig,
    log_ratio: Float[Tensor, "B N"],
    advantage: Float[Tensor, "B"],
    weight: Float[Tensor, "B"],
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """Every token's own ratio, clipped by itself; a decision's weight is shared by its N tokens.

    Source: Shao et al. 2024 (DeepSeekMath), Eq. 3; the mean is over all tokens (ALGORITHM.md 5.3, 8.2).
    """
    tokens = log_ratio.shape[1]
    advantage, weight = (x[:, None].expand_as(log_ratio) for x in (advantage, weight / tokens))
    return _surrogate(config, "action", log_ratio, advantage, weight)


def _surrogate(
    config: LapoConfig,
    name: str,
    log_ratio: Float[Tensor, "*any"],
    advantage: Float[Tensor, "*any"],
    weight: Float[Tensor, "*any"],
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """Weighted sum of -min(ratio * advantage, clipped ratio * advantage), and its figures."""
    # e^20 is already far outside every clip range; beyond it exp would only overflow
    log_ratio = log_ratio.clamp(-20.0, 20.0)
    ratio = log_ratio.exp()
    free = ratio * advantage
    clipped = ratio.clamp(1 - config.clip_low, 1 + config.clip_high) * advantage
    loss = -(weight * torch.minimum(free, clipped)).sum()
    with torch.no_grad():
        parts = {
            f"{name}_loss": loss.detach(),
            f"{name}_clipped": (weight * (clipped < free)).sum(),
            f"{name}_approx_kl": (weight * (ratio - 1 - log_ratio)).sum(),
            f"{name}_ratio_max": torch.where(weight > 0, log_ratio.abs(), 0.0).amax().exp(),
        }
    return loss, parts


def _value_loss(
    config: LapoConfig,
    old: Float[Tensor, "B"],
    new: Float[Tensor, "B"],
    target: Float[Tensor, "B"],
    weight: Float[Tensor, "B"],
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """Squared error, or the release's half of the larger of two: as it is, and moved at most `value_clip`."""
    error = (new - target).square()
    if config.value_clip is None:
        loss, clipped = (weight * error).sum(), torch.zeros_like(weight)
    else:
        held = old + (new - old).clamp(-config.value_clip, config.value_clip)
        held_error = (held - target).square()
        loss, clipped = 0.5 * (weight * torch.maximum(error, held_error)).sum(), weight * (held_error > error)
    return loss, {"value_loss": loss.detach(), "value_clipped": clipped.sum()}


@torch.no_grad()
def _latent_move(
    latent_policy: LatentDistribution, old: PolicyTerms, new: PolicyTerms, weight: Float[Tensor, "B"]
) -> dict[str, Float[Tensor, ""]]:
    """How far the means moved (ALGORITHM.md 4.4): KL is rho^2 / 2 per used dimension."""
    kl = latent_policy.kl(old.latent, new.latent, old.latent_used)
    latents = old.latent_used.sum(-1).clamp(min=1)
    cosine = torch.where(old.latent_used, torch.cosine_similarity(old.latent, new.latent, dim=-1), 0.0).sum(
        -1
    )
    return {
        "latent_kl": (weight * kl).sum(),
        "latent_rho": (weight * (2 * kl / (latents * old.latent.shape[-1])).sqrt()).sum(),
        "latent_cosine": (weight * cosine / latents).sum(),
    }
