"""Losses of reinforcement with interventions: temporal difference, cloning, guidance by a critic.

How latents and the stop enter (ALGORITHM.md 9 leaves it open): only as inputs.  Every update lets the present
policy think anew, without gradient, and reads that thought in one pass; cloning and guidance then reach the
weights through how the thought is *used*.  Neither the latents nor the stop have a loss of their own here.
A latent's target in the warm-up is the future of a demonstration, and the futures at hand online are mostly
those of a policy that is still failing; a person, who supplies the right action, supplies no thought with it;
and a likelihood ratio as in LAPO needs thoughts drawn by the policy that is updated, where these buffers hold
what older ones did.  So thinking keeps what the warm-up taught, and shifts only as far as shared weights do.

Axes: B transitions, M critics, N action tokens, V bins, K chunks drawn per transition.
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from lastr1.algo.baselines import grpo
from lastr1.algo.imitation import spread_labels
from lastr1.algo.masked import full_precision


@torch.no_grad()
def td_target(
    reward: Float[Tensor, "B"],
    discount: Float[Tensor, "B"],
    terminated: Bool[Tensor, "B"],
    after: Float[Tensor, "M B"],
) -> Float[Tensor, "B"]:
    """y = r + discount (1 - terminated) min_m Q_m(o', a'), a' drawn from the present policy.

    Source: ALGORITHM.md 9; the minimum: Fujimoto et al. 2018 (TD3), Eq. 10.  A truncated episode bootstraps.
    """
    return reward + discount * torch.where(terminated, 0.0, full_precision(after).amin(0))


def critic_loss(value: Float[Tensor, "M B"], target: Float[Tensor, "B"]) -> Float[Tensor, ""]:
    """Sum over critics of the mean squared error: each learns as if it were alone."""
    return (full_precision(value) - target).square().mean(-1).sum()


def cloning_loss(
    logits: Float[Tensor, "B N V"],
    tokens: Int64[Tensor, "B N"],
    mask: Bool[Tensor, "B N"],
    count: float,
    smoothing: float,
) -> Float[Tensor, ""]:
    """Cross-entropy of what a person did, at temperature 1, summed over `mask` and divided by `count`.

    `mask` is False in transitions of the policy's own and past the end of a chunk that was cut short; `count`
    is the number of valid tokens of the whole batch, so that micro-batches add up.  `smoothing`: bins over
    which a label is spread, as in the warm-up.
    """
    chosen = full_precision(logits[mask])
    labels = spread_labels(logits.shape[-1], smoothing).to(chosen)[tokens[mask]]
    return torch.nn.functional.cross_entropy(chosen, labels, reduction="sum") / max(1.0, count)


def guided_loss(
    logits: Float[Tensor, "B N V"],
    tokens: Int64[Tensor, "B K N"],
    value: Float[Tensor, "B K"],
    temperature: float,
) -> Float[Tensor, "B"]:
    """- mean_k A_k log pi(chunk_k) / N with A_k = (Q_k - mean) / (std + 1e-6) over the K draws.

    Source: ALGORITHM.md 9.  `tokens` were drawn from `logits` at this `temperature`; `value` is the lowest
    critic's.  The mean of the K draws is the baseline, so equal values teach nothing.
    """
    batch, draws, count = tokens.shape
    advantage = grpo(full_precision(value).flatten(), draws).reshape(batch, draws)
    log_probability = torch.log_softmax(full_precision(logits) / temperature, dim=-1)
    logp = log_probability.gather(-1, tokens.transpose(1, 2)).sum(1)  # [B, K]
    return -(advantage * logp).mean(1) / count
