"""Advantages and value targets over decisions.

Axes: E episodes, T decisions per episode (padded at the end).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Advantages:
    """Both are constants of the update, in discounted reward, and 0 at padding."""

    advantage: Float[Tensor, "E T"]
    """Not whitened."""
    target: Float[Tensor, "E T"]
    """What the value head is regressed on: advantage + value."""


@torch.no_grad()
def gae(
    reward: Float[Tensor, "E T"],
    value: Float[Tensor, "E T"],
    last_value: Float[Tensor, "E"],
    valid: Bool[Tensor, "E T"],
    *,
    discount: float,
    trace: float,
) -> Advantages:
    """Generalised advantage estimation, cut at the end of each episode.

    `last_value` stands behind the last valid decision: 0 if the episode terminated, V(last observation) if it
    was truncated.  `valid` is a prefix mask; entries outside it influence nothing, whatever they hold.
    Source: Schulman et al.  2016, Eq.  16; ALGORITHM.md 5.2.  The release runs the recursion over the padding
    too, so the value of the frozen last frame leaks into earlier decisions (section 10, item 1).
    """
    continues = torch.cat([valid[:, 1:], torch.zeros_like(valid[:, :1])], dim=1)
    next_value = torch.where(continues, value.roll(-1, dims=1), last_value[:, None])
    delta = torch.where(valid, reward + discount * next_value - value, 0.0)
    advantage = torch.zeros_like(delta)
    later = torch.zeros_like(last_value)
    for t in reversed(range(valid.shape[1])):
        later = delta[:, t] + discount * trace * later
        advantage[:, t] = later
    return Advantages(advantage=advantage, target=torch.where(valid, advantage + value, 0.0))
