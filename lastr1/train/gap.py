"""What a thought loses when it is the policy's own: the gap between teacher forcing and acting (6.4).

Axes: B decisions, L latent slots, D width, N action tokens.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lastr1.demos.dataset import Batch
from lastr1.model.policy import Thought
from lastr1.train.warmup import Teaching, rescale

BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Over demonstrated frames, centre crops; every thought as long as the policy makes it at evaluation."""

    decisions: int
    forced_action_accuracy: float
    """share of the action bins that are right with the targets in the slots"""
    fed_action_accuracy: float
    """the same after the policy's own thought: as it acts"""
    action_accuracy_gap: float
    """the first less the second"""
    forced_cosine: float
    """of a latent with its target, the targets before it in the slots"""
    fed_cosine: float
    """of a latent of the policy's own thought"""
    constant_cosine: float
    """of the mean target of the data set: what a constant thought would score"""

    def __str__(self) -> str:
        return (
            f"on {self.decisions} demonstrated frames {self.fed_action_accuracy:.1%} of the action bins are "
            f"right after its own thoughts, {self.forced_action_accuracy:.1%} after the targets; cosine with "
            f"the targets {self.fed_cosine:.2f} and {self.forced_cosine:.2f}, of a constant "
            f"{self.constant_cosine:.2f}"
        )


@torch.no_grad()
def measure_gap(teaching: Teaching, decisions: int = 256) -> Gap:
    """The gap as the policy is now; the lessons to come are the same with and without it."""
    policy, generator = teaching.bundle.policy, np.random.default_rng([teaching.seed, 7])
    learning = policy.training
    policy.eval()
    total = torch.zeros(6, dtype=torch.float64)
    for first in range(0, decisions, BATCH):
        total += _counts(teaching, teaching.data.draw(min(BATCH, decisions - first), generator))
    policy.train(learning)
    forced, fed, tokens, forced_cosine, fed_cosine, latents = total.tolist()
    tokens, latents = max(1.0, tokens), max(1.0, latents)  # of nothing, the mean is 0
    return Gap(
        decisions=decisions,
        forced_action_accuracy=forced / tokens,
        fed_action_accuracy=fed / tokens,
        action_accuracy_gap=(forced - fed) / tokens,
        forced_cosine=forced_cosine / latents,
        fed_cosine=fed_cosine / latents,
        constant_cosine=teaching.constant_cosine(),
    )


def _counts(teaching: Teaching, batch: Batch) -> Float[Tensor, "6"]:
    """Bins right when forced, when fed, and in all; sums of cosines forced and fed, and of how many."""
    policy = teaching.bundle.policy
    longest = torch.full((len(batch.tasks),), policy.config.stop_candidates)
    lesson = teaching.lesson_of(batch, longest)
    labels, decision = lesson.labels, policy.decide(lesson.prompt)
    groups = decision.thought.groups
    taught, valid = labels.latent_mask & policy.used(groups), labels.action_mask
    forced = policy.read(
        policy.backbone.look(lesson.prompt),
        Thought(latent=rescale(labels.latent, teaching.latent_rms), groups=groups),
    )

    def cosines(latent: Tensor) -> Tensor:
        return torch.cosine_similarity(latent[taught].float(), labels.latent[taught].float(), dim=-1).sum()

    def right(tokens: Tensor) -> Tensor:
        return (tokens == labels.tokens)[valid].sum()

    return (
        torch.stack(
            [
                right(forced.action_logits.argmax(-1)),
                right(decision.tokens),
                valid.sum(),
                cosines(forced.mean),
                cosines(decision.thought.latent),
                taught.sum(),
            ]
        )
        .double()
        .cpu()
    )
