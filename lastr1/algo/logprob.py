"""Draws and log-probabilities of the three things a policy decides: action bins, stop, latents.

Everything is fp32 (float64 stays float64), outside any autocast, and random numbers are arguments.
Axes: B decisions, N action tokens, V bins, K stop candidates, L latent slots, D latent width.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from lastr1.algo.masked import full_precision

# ---------------------------------------------------------------------------------------- categoricals


def _log_softmax(logits: Float[Tensor, "*shape"], temperature: float) -> Float[Tensor, "*shape"]:
    return torch.log_softmax(full_precision(logits) / temperature, dim=-1)


def _entropy(logits: Float[Tensor, "*batch V"], temperature: float) -> Float[Tensor, "*batch"]:
    probability = torch.softmax(full_precision(logits) / temperature, dim=-1)
    return torch.where(probability > 0, -probability * _log_softmax(logits, temperature), 0.0).sum(-1)


def _inverse_cdf(
    logits: Float[Tensor, "*batch V"], temperature: float, uniform: Float[Tensor, "*batch"]
) -> Int64[Tensor, "*batch"]:
    """Index k with cdf[k - 1] <= uniform * total < cdf[k]; never a bin of probability 0, never out of range.

    float64, because the rounding of 256 fp32 additions would shift the last edges below the largest uniform.
    """
    cdf = torch.softmax(logits.double() / temperature, dim=-1).cumsum(-1)
    return (uniform.double()[..., None] * cdf[..., -1:] >= cdf[..., :-1]).sum(-1)


# ------------------------------------------------------------------------------------------------ action bins


def token_logp(
    logits: Float[Tensor, "B N V"], tokens: Int64[Tensor, "B N"], temperature: float
) -> Float[Tensor, "B N"]:
    """log pi(token) in nats: softmax over the bins at `temperature`; their sum is that of the chunk.

    Source: ALGORITHM.md 5.3.  The release computes this in bf16 in the update, which alone moves most ratios
    out of the clip range (5.7).
    """
    return _log_softmax(logits, temperature).gather(-1, tokens[..., None])[..., 0]


def action_entropy(logits: Float[Tensor, "B N V"], temperature: float) -> Float[Tensor, "B"]:
    """Entropy of the action bins, nats per token."""
    return _entropy(logits, temperature).mean(-1)


def draw_actions(
    logits: Float[Tensor, "B N V"], temperature: float, uniform: Float[Tensor, "B N"]
) -> Int64[Tensor, "B N"]:
    """Tokens in 0..V-1, each drawn from its own softmax by the number `uniform` in [0, 1)."""
    return _inverse_cdf(logits, temperature, uniform)


# ------------------------------------------------------------------------------------------------ stop


@runtime_checkable  # the tests check annotations at run time
class StopLikelihood(Protocol):
    """How probable it was to stop where the thought stopped.

    `stop_logits` are the raw logits l_g of the stop token at each candidate; `vocab_logsumexp` is the
    logsumexp of all logits / temperature at the same place; `groups` is in 1..K.  K = 0 (no thought) gives 0.
    """

    def logp(
        self,
        stop_logits: Float[Tensor, "B K"],
        vocab_logsumexp: Float[Tensor, "B K"],
        groups: Int64[Tensor, "B"],
    ) -> Float[Tensor, "B"]:
        """Nats."""
        ...


def _at(values: Float[Tensor, "B K"], groups: Int64[Tensor, "B"]) -> Float[Tensor, "B"]:
    """values[b, groups[b] - 1]; a masked sum rather than gather, so that K = 0 gives 0 without a branch."""
    chosen = torch.arange(1, values.shape[1] + 1, device=values.device) == groups[:, None]
    return torch.where(chosen, values, 0.0).sum(-1)


@dataclass(frozen=True)
class ConsistentStop:
    """The distribution the stop is drawn from: a categorical over the K candidates (paper Eq. 6).

    Every candidate gets gradient, and K = 1 gives 0: a fixed length needs no branch.
    """

    temperature: float

    def logp(
        self,
        stop_logits: Float[Tensor, "B K"],
        vocab_logsumexp: Float[Tensor, "B K"],  # noqa: ARG002  (one protocol for both likelihoods)
        groups: Int64[Tensor, "B"],
    ) -> Float[Tensor, "B"]:
        """log softmax over candidates of l / temperature, at the chosen one; ignores `vocab_logsumexp`."""
        return _at(_log_softmax(stop_logits, self.temperature), groups)


@dataclass(frozen=True)
class ReleasedStop:
    """The release's likelihood: the stop token in the whole vocabulary, at the chosen candidate only.

    It is the likelihood of another experiment than the one that is drawn (ALGORITHM.md 3); for parity.
    """

    temperature: float

    def logp(
        self,
        stop_logits: Float[Tensor, "B K"],
        vocab_logsumexp: Float[Tensor, "B K"],
        groups: Int64[Tensor, "B"],
    ) -> Float[Tensor, "B"]:
        """l / temperature - vocab_logsumexp, at the chosen candidate."""
        return _at(full_precision(stop_logits) / self.temperature - vocab_logsumexp, groups)


def draw_stop(
    stop_logits: Float[Tensor, "B K"], temperature: float, uniform: Float[Tensor, "B"]
) -> Int64[Tensor, "B"]:
    """Groups in 1..K, drawn from softmax(l / temperature) by the number `uniform` in [0, 1) (paper Eq. 6)."""
    return _inverse_cdf(stop_logits, temperature, uniform) + 1


def stop_entropy(stop_logits: Float[Tensor, "B K"], temperature: float) -> Float[Tensor, "B"]:
    """Entropy of the categorical that `draw_stop` draws from, nats."""
    return _entropy(stop_logits, temperature)


def evaluation_stop(
    rule: Literal["first", "max", "mode"],
    stop_logits: Float[Tensor, "B K"],
    logp_vocab_t1: Float[Tensor, "B K"],
    threshold: float,
) -> Int64[Tensor, "B"]:
    """Groups in 1..K without a draw, for K >= 1 (ALGORITHM.md 3).

    `logp_vocab_t1` is log p of the stop token in the whole vocabulary at temperature 1.  `first`: the first
    candidate with p >= threshold, else the largest p (the paper states the threshold, the fallback is the
    release's); `max`: the largest p; `mode`: the largest l, the mode of the drawn categorical.
    """
    if rule == "mode":
        return stop_logits.argmax(-1) + 1
    best = logp_vocab_t1.argmax(-1)
    if rule == "max":
        return best + 1
    reached = logp_vocab_t1 >= math.log(threshold)
    # argmax returns the first of equal values
    return torch.where(reached.any(-1), reached.int().argmax(-1), best) + 1


# --------------------------------------------------------------------------------------------- latents


@runtime_checkable
class LatentDistribution(Protocol):
    """How latents are drawn around the predicted mean, and how the likelihood of a stored thought changes."""

    def sample(
        self, mean: Float[Tensor, "*batch D"], eps: Float[Tensor, "*batch D"]
    ) -> Float[Tensor, "*batch D"]:
        """What is fed back, in the dtype of `mean`; `eps` is standard normal."""
        ...

    def log_ratio(
        self,
        z: Float[Tensor, "B L D"],
        old_mean: Float[Tensor, "B L D"],
        new_mean: Float[Tensor, "B L D"],
        used: Bool[Tensor, "B L"],
    ) -> Float[Tensor, "B"]:
        """log of the ratio that LAPO clips, over the used latents; unused ones may hold anything."""
        ...

    def kl(
        self, old_mean: Float[Tensor, "B L D"], new_mean: Float[Tensor, "B L D"], used: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "B"]:
        """KL divergence between the two Gaussians, nats, summed over the used latents."""
        ...


def _kl(
    old_mean: Float[Tensor, "B L D"],
    new_mean: Float[Tensor, "B L D"],
    used: Bool[Tensor, "B L"],
    sigma: float,
) -> Float[Tensor, "B"]:
    move = full_precision(new_mean) - full_precision(old_mean)
    return torch.where(used[..., None], move.square(), 0.0).sum((-2, -1)) / (2 * sigma**2)


@dataclass(frozen=True)
class GaussianLatent:
    """z = mean + sigma * eps: latents explore, and the ratio is one of likelihoods (ALGORITHM.md 4.2).

    sigma is in units of the latents and constant during a run, so that the normaliser cancels.  `norm`
    divides the log-ratio: by 1 (`sum`, the true ratio), by D (`dim`), or by D times the latents used
    (`element`); at D in the thousands the true ratio leaves the clip range as soon as the mean moves by 0.01
    sigma (4.4).
    """

    sigma: float
    norm: Literal["sum", "dim", "element"]

    def sample(
        self, mean: Float[Tensor, "*batch D"], eps: Float[Tensor, "*batch D"]
    ) -> Float[Tensor, "*batch D"]:
        """mean + sigma * eps, rounded to the dtype of `mean`, as it will be fed and stored."""
        return (mean + self.sigma * eps).to(mean.dtype)

    def log_ratio(
        self,
        z: Float[Tensor, "B L D"],
        old_mean: Float[Tensor, "B L D"],
        new_mean: Float[Tensor, "B L D"],
        used: Bool[Tensor, "B L"],
    ) -> Float[Tensor, "B"]:
        """sum_used <new - old, z - (old + new) / 2> / sigma^2 / norm: exactly 0 where new = old."""
        z, old, new = full_precision(z), full_precision(old_mean), full_precision(new_mean)
        inner = torch.where(used[..., None], (new - old) * (z - 0.5 * (old + new)), 0.0).sum((-2, -1))
        width = z.shape[-1]
        divisor: dict[str, int | Tensor] = {
            "sum": 1,
            "dim": width,
            "element": width * used.sum(-1).clamp(min=1),
        }
        return inner / (self.sigma**2 * divisor[self.norm])

    def kl(
        self, old_mean: Float[Tensor, "B L D"], new_mean: Float[Tensor, "B L D"], used: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "B"]:
        """sum_used |new - old|^2 / (2 sigma^2): exact for equal covariances."""
        return _kl(old_mean, new_mean, used, self.sigma)


@dataclass(frozen=True)
class DeterministicLatent:
    """z = mean, and the paper's pseudo-ratio exp(-|old - new|^2 / (2 sigma^2)) (Eq. 3, 8-12).

    Never above 1 and without gradient at new = old (ALGORITHM.md 4.1); for parity (release: sigma 10).
    """

    sigma: float

    def sample(
        self,
        mean: Float[Tensor, "*batch D"],
        eps: Float[Tensor, "*batch D"],  # noqa: ARG002  (one protocol for both policies)
    ) -> Float[Tensor, "*batch D"]:
        """The mean."""
        return mean

    def log_ratio(
        self,
        z: Float[Tensor, "B L D"],  # noqa: ARG002
        old_mean: Float[Tensor, "B L D"],
        new_mean: Float[Tensor, "B L D"],
        used: Bool[Tensor, "B L"],
    ) -> Float[Tensor, "B"]:
        """-sum_used |new - old|^2 / (2 sigma^2); ignores z, which is only the replayed input."""
        return -_kl(old_mean, new_mean, used, self.sigma)

    def kl(
        self, old_mean: Float[Tensor, "B L D"], new_mean: Float[Tensor, "B L D"], used: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "B"]:
        """sum_used |new - old|^2 / (2 sigma^2)."""
        return _kl(old_mean, new_mean, used, self.sigma)
