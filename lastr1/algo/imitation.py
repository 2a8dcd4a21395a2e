"""Warm-up loss: thoughts towards a teacher's view of the future, stops, actions.

Axes: B samples, L latent slots, D latent width, N action tokens, V bins, K stop candidates.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from lastr1.algo.logprob import ConsistentStop, ReleasedStop
from lastr1.algo.masked import full_precision
from lastr1.config import WarmupConfig


@dataclass(frozen=True, kw_only=True)
class ImitationLabels:
    """What a sample should have become."""

    latent: Float[Tensor, "B L D"]
    """Teacher embeddings of future frames."""
    latent_mask: Bool[Tensor, "B L"]
    """Slots to be taught: used at the drawn length, and the frame exists."""
    tokens: Int64[Tensor, "B N"]
    """Bins of the demonstrated chunk, 0..V-1."""
    action_mask: Bool[Tensor, "B N"]
    """False behind the end of the demonstration."""
    groups: Int64[Tensor, "B"]
    """Drawn length of the thought, 1..K; any value if K = 0."""


@dataclass(frozen=True, kw_only=True)
class ImitationTerms:
    """What the model made of it.  `latent` is from pass 1 (teacher forcing), the rest from pass 2 (self-
    fed)."""

    latent: Float[Tensor, "B L D"]
    action_logits: Float[Tensor, "B N V"]
    stop_logits: Float[Tensor, "B K"]
    """Raw logit of the stop token at every candidate."""
    vocab_logsumexp_t1: Float[Tensor, "B K"]
    """logsumexp over the whole vocabulary at the same places, temperature 1."""


@dataclass(frozen=True, kw_only=True)
class ImitationCounts:
    """Denominators of the three means; summed over micro-batches and ranks before any backward pass."""

    samples: Float[Tensor, ""]
    latents: Float[Tensor, ""]
    tokens: Float[Tensor, ""]


@dataclass(frozen=True, kw_only=True)
class ImitationLoss:
    """`total` carries the gradient; `parts` are figures without one.  Both add up over micro-batches."""

    total: Float[Tensor, ""]
    parts: dict[str, Float[Tensor, ""]]


def imitation_counts(labels: ImitationLabels) -> ImitationCounts:
    """The denominators of one batch: how many samples, taught latents and valid tokens it has."""
    return ImitationCounts(
        samples=torch.ones_like(labels.groups).sum().float(),
        latents=labels.latent_mask.sum().float(),
        tokens=labels.action_mask.sum().float(),
    )


def spread_labels(bins: int, width: float) -> Float[Tensor, "V V"]:
    """Row k: the label of bin k, a Gaussian of `width` bins around it; 0 is one-hot.

    Bins are ordered, which a one-hot label hides: a small model learns many times slower from it.
    """
    if width == 0:
        return torch.eye(bins)
    index = torch.arange(float(bins))
    return torch.softmax(-0.5 * ((index[:, None] - index[None]) / width).square(), dim=-1)


def imitation_loss(
    config: WarmupConfig, labels: ImitationLabels, terms: ImitationTerms, counts: ImitationCounts
) -> ImitationLoss:
    """cosine_weight * L_cos + stop_weight * L_stop + action_weight * L_act, all at temperature 1.

    Source: ALGORITHM.md 6.5.  L_cos: mean of 1 - cosine over the supervised latents (their norm stays free).
    L_act: mean cross-entropy over the valid tokens.  L_stop: categorical over the K candidates, which ours
    adds so that unused candidates learn too, and cross-entropy of the stop token in the whole vocabulary at
    the drawn candidate.  L = 0 or K = 0 gives parts of 0.

    parts: `cosine_loss`, `stop_candidate_loss`, `stop_vocab_loss`, `action_loss` (before the config's
    weights), `cosine` (mean), `action_accuracy` (share of valid tokens whose largest logit is the right one).
    """
    taught, valid = labels.latent_mask, labels.action_mask
    # of nothing, the mean is 0
    sample_count, latent_count = counts.samples.clamp(min=1), counts.latents.clamp(min=1)
    token_count = counts.tokens.clamp(min=1)
    cosine = torch.cosine_similarity(
        full_precision(terms.latent[taught]), full_precision(labels.latent[taught]), dim=-1
    )
    logits, tokens = full_precision(terms.action_logits[valid]), labels.tokens[valid]
    cosine_loss = (1 - cosine).sum() / latent_count
    labels_of = spread_labels(logits.shape[-1], config.action_smoothing).to(logits)[tokens]
    action_loss = torch.nn.functional.cross_entropy(logits, labels_of, reduction="sum") / token_count
    stop = (terms.stop_logits, terms.vocab_logsumexp_t1, labels.groups)
    candidate_loss = -ConsistentStop(1.0).logp(*stop).sum() / sample_count
    vocab_loss = -ReleasedStop(1.0).logp(*stop).sum() / sample_count
    stop_loss = config.stop_candidate_weight * candidate_loss + config.stop_vocab_weight * vocab_loss
    parts = {
        "cosine_loss": cosine_loss,
        "stop_candidate_loss": candidate_loss,
        "stop_vocab_loss": vocab_loss,
        "action_loss": action_loss,
        "cosine": cosine.sum() / latent_count,
        "action_accuracy": (logits.argmax(-1) == tokens).sum() / token_count,
    }
    return ImitationLoss(
        total=config.cosine_weight * cosine_loss
        + config.stop_weight * stop_loss
        + config.action_weight * action_loss,
        parts={name: part.detach() for name, part in parts.items()},
    )
