"""An ensemble of critics of chunks, with slow copies of themselves.

Axes: B transitions, M critics, D width of the policy, X = C*A numbers of a chunk.
"""

from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Critics(nn.Module):
    """M networks Q(state, chunk), each of its own random weights (seed torch beforehand).

    The state is the policy's at the stop of its thought, without gradient: the critics look through the
    policy's eyes and never move them (ALGORITHM.md 9; LayerNorm as in Ball et al. 2023, RLPD).
    """

    def __init__(self, width: int, chunk: int, *, count: int, hidden: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(_network(width + chunk, hidden) for _ in range(count))

    def forward(self, state: Float[Tensor, "B D"], chunk: Float[Tensor, "B X"]) -> Float[Tensor, "M B"]:
        """Discounted reward expected after the chunk, in -1..1 per number, is played."""
        with torch.autocast(state.device.type, enabled=False):
            both = torch.cat([state.detach().float(), chunk], dim=-1)
            return torch.stack([member(both).squeeze(-1) for member in self.members])

    def copy(self) -> "Critics":
        """The same now, without gradient."""
        return deepcopy(self).requires_grad_(False)

    @torch.no_grad()
    def follow(self, others: "Critics", rate: float) -> None:
        """Go `rate` of the way to `others` (Polyak averaging)."""
        for mine, theirs in zip(self.parameters(), others.parameters(), strict=True):
            mine.lerp_(theirs, rate)


def _network(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, hidden),
        nn.LayerNorm(hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.LayerNorm(hidden),
        nn.ReLU(),
        nn.Linear(hidden, 1),
    )
