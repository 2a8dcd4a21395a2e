"""The dice of a batch of decisions.

Axes: B decisions, L latent slots, D width, N action tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Noise:
    """All randomness of a batch of decisions, drawn beforehand; each row from a seed of its own."""

    latent: Float[Tensor, "B L D"]
    """standard normal"""
    stop: Float[Tensor, "B"]
    """uniform in [0, 1)"""
    action: Float[Tensor, "B N"]
    """uniform in [0, 1)"""

    @staticmethod
    def draw(seeds: Sequence[int], *, latents: int, width: int, actions: int) -> "Noise":
        """Rows depend on their own seed only, so a rollout does not depend on who shares a batch."""
        normal, uniform = [], []
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            normal.append(torch.randn(latents, width, generator=generator))
            uniform.append(torch.rand(1 + actions, generator=generator))
        uniforms = torch.stack(uniform)
        return Noise(latent=torch.stack(normal), stop=uniforms[:, 0], action=uniforms[:, 1:])
