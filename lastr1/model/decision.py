"""What the policy hands over: one thought and one chunk.

Axes: B decisions, L latent slots, D width, N action tokens.
"""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from lastr1.algo.lapo import PolicyTerms


@dataclass(frozen=True, kw_only=True)
class Thought:
    """What was fed back while thinking, and when it stopped."""

    latent: Float[Tensor, "B L D"]
    """z, exactly as fed; slots after the stop do not count (0 where they were never reached)"""
    groups: Int[Tensor, "B"]
    """1..K (0 for the action-only policy)"""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One thought and one chunk."""

    thought: Thought
    tokens: Int[Tensor, "B N"]
    """action bins, 0..255"""
    state: Float[Tensor, "B D"]
    """at the stop that ended the thought: what values are read off"""
    terms: PolicyTerms
    """as drawn: sampling temperature in rollouts, 1 at evaluation"""
    rules: Int[Tensor, "B 2"]
    """groups after which `first` and `mode` end this thought; 0 where it was not noted"""
