"""What is read off hidden states: logits, and the value.

Axes: B decisions, L latent slots, K stop candidates, N action tokens, D width, R rows of the output matrix.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Everything the heads read off one pass over given slot contents."""

    mean: Float[Tensor, "B L D"]
    """predicted latents"""
    stop_state: Float[Tensor, "B K D"]
    stop_logits: Float[Tensor, "B K"]
    value_state: Float[Tensor, "B D"]
    """at the stop that ended the thought"""
    value: Float[Tensor, "B"]
    action_logits: Float[Tensor, "B N 256"]


def value_head(width: int) -> nn.Sequential:
    """Four linear layers with ReLU (ALGORITHM.md 2.10); weights N(0, 0.02^2), biases 0."""
    layers: list[nn.Module] = []
    for wide, narrow in pairwise([width, 512, 256, 128, 1]):
        linear = nn.Linear(wide, narrow)
        nn.init.normal_(linear.weight, std=0.02)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def head_logits(state: Float[Tensor, "*batch D"], rows: Float[Tensor, "R D"]) -> Float[Tensor, "*batch R"]:
    """state @ rows^T in fp32 on both sides, outside any autocast (ALGORITHM.md 5.7)."""
    with torch.autocast(state.device.type, enabled=False):
        return state.float() @ rows.float().T


def chosen(states: Float[Tensor, "B K D"], groups: Int[Tensor, "B"]) -> Float[Tensor, "B D"]:
    """The state at the stop that ended the thought; without groups (K = 0) the only one."""
    return states[torch.arange(states.shape[0], device=states.device), (groups - 1).clamp(min=0)]
