"""A budget for thinking: what latents cost, and the price at which thoughts are as long as they should be.

Thinking within a budget is a constrained problem: as much success as possible, with thoughts of `target`
latents on average.  Its Lagrangian takes `price` times the latents off the reward, and the price is its
multiplier: it rises as long as thoughts are too long.

Axes: E episodes, T decisions per episode (padded at the end).
"""

import torch
from jaxtyping import Float
from torch import Tensor


@torch.no_grad()
def charged(
    reward: Float[Tensor, "E T"], latents: Float[Tensor, "E T"], price: float
) -> Float[Tensor, "E T"]:
    """`reward - price * latents`, every decision for its own thought; to the last bit `reward` at price 0.

    `latents`: used per decision, 0 at padding.  `price`: reward per latent.
    Source: Tessler et al. 2019 (reward constrained policy optimization), the penalised reward; ours here.
    """
    return reward - price * latents


def next_price(price: float, mean_latents: float, target: float, rate: float) -> float:
    """One step of the dual problem: `max(0, price + rate * (mean_latents - target))`.

    Thoughts shorter than the target may cost nothing, but are never paid for.
    Source: Tessler et al. 2019, the projected step of the multiplier.
    """
    return max(0.0, price + rate * (mean_latents - target))
