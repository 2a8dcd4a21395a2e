"""Step -> Episode -> Rollout -> Minibatch.

Axes: E episodes, T decisions per episode (padded at the end), B decisions (the valid of E x T, in row order),
L latent slots, D latent width, N action tokens, Q decisions after a truncation (one per truncated episode).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lastr1.algo.lapo import PolicyTerms
from lastr1.envs.base import Start
from lastr1.model.policy import Thought
from lastr1.types import Array

T = TypeVar("T")


def tree_map(f: Callable[..., Tensor], *trees: T) -> T:
    """Apply `f` to corresponding tensors of frozen dataclasses of tensors."""
    if isinstance(trees[0], Tensor):
        return f(*trees)  # type: ignore[return-value]
    parts = [vars(tree) for tree in trees]
    return type(trees[0])(**{name: tree_map(f, *(part[name] for part in parts)) for name in parts[0]})


def moved(tree: T, device: torch.device) -> T:
    """A tensor, or a frozen dataclass of tensors, on `device`; itself where it is there already."""
    return tree_map(lambda x: x.to(device), tree)


@dataclass(frozen=True, kw_only=True)
class Decided:
    """One decision as it is stored: what was seen, thought, done and scored."""

    instruction: str
    pixels: Array
    """uint8 [cameras, h, w, 3], cropped as the policy saw them"""
    thought: Thought
    """rows [L, D] and [], on the CPU"""
    tokens: Tensor
    """[N]"""
    terms: PolicyTerms
    """as recorded while acting, without the batch axis"""
    rules: Tensor
    """[2] groups after which `first` and `mode` end the thought, 0 where not known"""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One decision and what came of it."""

    decided: Decided
    reward: float
    steps: int
    """control steps played"""


@dataclass(frozen=True, kw_only=True)
class Episode:
    """From a start to success or the step cap."""

    start: Start
    steps: tuple[Step, ...]
    success: bool
    after: Decided | None
    """thought on the last observation of a truncated episode (for its value); None after success"""
    seconds: float
    version: int
    """weights it was played with"""
    lost: int = 0
    """times it was begun anew because its simulator was lost"""

    @property
    def control_steps(self) -> int:
        """Control steps played."""
        return sum(step.steps for step in self.steps)

    @property
    def groups(self) -> float:
        """Mean groups per thought."""
        return float(np.mean([int(step.decided.thought.groups) for step in self.steps]))


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """Stored decisions side by side, ready to be evaluated again."""

    instructions: list[str]
    pixels: Array
    """uint8 [B, cameras, h, w, 3]"""
    thought: Thought
    tokens: Int[Tensor, "B N"]
    terms: PolicyTerms

    @staticmethod
    def stack(decided: Sequence[Decided]) -> "Decisions":
        """Rows in the given order."""

        def together(*rows: Tensor) -> Tensor:
            return torch.stack(rows)

        return Decisions(
            instructions=[d.instruction for d in decided],
            pixels=np.stack([d.pixels for d in decided]),
            thought=tree_map(together, *(d.thought for d in decided)),
            tokens=torch.stack([d.tokens for d in decided]),
            terms=tree_map(together, *(d.terms for d in decided)),
        )

    def __len__(self) -> int:
        return len(self.instructions)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays and tensors."""
        tensors = [self.tokens, *vars(self.thought).values(), *vars(self.terms).values()]
        return int(self.pixels.nbytes + sum(x.nbytes for x in tensors))

    def rows(self, index: Int[Tensor, "B"]) -> "Decisions":
        """A selection."""
        return Decisions(
            instructions=[self.instructions[i] for i in index.tolist()],
            pixels=self.pixels[index.numpy()],
            thought=tree_map(lambda x: x[index], self.thought),
            tokens=self.tokens[index],
            terms=tree_map(lambda x: x[index], self.terms),
        )


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """The episodes of one iteration."""

    episodes: tuple[Episode, ...]
    decisions: Decisions
    """the B valid decisions, episode by episode"""
    reward: Float[Tensor, "E T"]
    """1 for a success during the decision, otherwise 0; before learning, less what its latents cost"""
    valid: Bool[Tensor, "E T"]
    """a prefix of every row; derived here and nowhere else"""
    truncated: Bool[Tensor, "E"]
    after: Decisions | None
    """the Q decisions after truncated episodes, in episode order (None if Q = 0)"""

    @property
    def nbytes(self) -> int:
        """Bytes of all decisions."""
        return self.decisions.nbytes + (self.after.nbytes if self.after is not None else 0)

    def pad(self, flat: Float[Tensor, "B"]) -> Float[Tensor, "E T"]:
        """One number per valid decision, back on the padded grid (zeros elsewhere)."""
        grid = torch.zeros(self.valid.shape)
        grid[self.valid] = flat
        return grid


def make_rollout(episodes: Sequence[Episode]) -> Rollout:
    """Pad and stack."""
    longest = max(len(e.steps) for e in episodes)
    reward = torch.zeros(len(episodes), longest)
    valid = torch.zeros(len(episodes), longest, dtype=torch.bool)
    for i, episode in enumerate(episodes):
        valid[i, : len(episode.steps)] = True
        reward[i, : len(episode.steps)] = torch.tensor([step.reward for step in episode.steps])
    after = [e.after for e in episodes if e.after is not None]
    return Rollout(
        episodes=tuple(episodes),
        decisions=Decisions.stack([step.decided for e in episodes for step in e.steps]),
        reward=reward,
        valid=valid,
        truncated=torch.tensor([e.after is not None for e in episodes]),
        after=Decisions.stack(after) if after else None,
    )


@dataclass(frozen=True, kw_only=True)
class Minibatch:
    """Everything one optimizer step needs."""

    decisions: Decisions
    old: PolicyTerms
    """terms before this iteration's first step"""
    advantage: Float[Tensor, "B"]
    target: Float[Tensor, "B"]
    """discounted reward"""
    weight: Float[Tensor, "B"]
    """sums to 1 over the whole minibatch, whatever micro-batches or ranks it is cut into"""

    def rows(self, index: Int[Tensor, "B"]) -> "Minibatch":
        """A selection (its weights no longer sum to 1)."""
        return Minibatch(
            decisions=self.decisions.rows(index),
            old=tree_map(lambda x: x[index], self.old),
            advantage=self.advantage[index],
            target=self.target[index],
            weight=self.weight[index],
        )
