"""Advantages without a critic: an episode against others from the same start.

Axes: E episodes; those of one group (same start, other noise) lie side by side, `group` of them.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@torch.no_grad()
def grpo(returns: Float[Tensor, "E"], group: int) -> Float[Tensor, "E"]:
    """`(R - mean) / (std + 1e-6)` within each group, the deviation unbiased; equal returns give 0.

    Source: Shao et al. 2024 (DeepSeekMath), Eq. 3 with outcome rewards; ALGORITHM.md 8.2.
    """
    rows = returns.reshape(-1, group)
    return ((rows - rows.mean(1, keepdim=True)) / (rows.std(1, keepdim=True) + 1e-6)).flatten()


@torch.no_grad()
def rloo(returns: Float[Tensor, "E"], group: int) -> Float[Tensor, "E"]:
    """`R - mean of the other returns` of the group.

    Source: Kool et al. 2019, Eq. 8; Ahmadian et al. 2024; ALGORITHM.md 8.2.
    """
    rows = returns.reshape(-1, group)
    others = (rows.sum(1, keepdim=True) - rows) / (group - 1)
    return (rows - others).flatten()


def mixed(returns: Float[Tensor, "E"], group: int) -> Bool[Tensor, "E"]:
    """Episodes of the groups whose returns differ: the only ones that teach anything (ALGORITHM.md 8.2)."""
    rows = returns.reshape(-1, group)
    return (rows != rows[:, :1]).any(1).repeat_interleave(group)
