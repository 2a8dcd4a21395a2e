"""Learner: the parameters, their optimizer, one update.

Axes: B decisions, E episodes, T decisions per episode, L latent slots, D width, Q truncated episodes.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

import torch
from torch import Tensor

from lastr1.algo.lapo import PolicyTerms, lapo_loss, merge_parts
from lastr1.algo.logprob import action_entropy, stop_entropy
from lastr1.config import LapoConfig, OptimizerConfig
from lastr1.model.weights import Bundle
from lastr1.rollout.batch import Decisions, Minibatch, tree_map
from lastr1.types import Array


class Learner:
    """Re-evaluates stored decisions and improves the policy on them."""

    def __init__(self, bundle: Bundle, lapo: LapoConfig, config: OptimizerConfig) -> None:
        self.bundle, self.lapo, self.config = bundle, lapo, config
        self.policy = bundle.policy
        self.policy.backbone.freeze_vision(config.freeze_vision)
        # Two groups with rates of their own; weight decay 0 (ALGORITHM.md 5.6).
        self.optimizer = torch.optim.AdamW(
            [
                {"params": list(self.policy.backbone.parameters()), "lr": config.lr},
                {"params": list(self.policy.value_head.parameters()), "lr": config.value_lr},
            ],
            weight_decay=0.0,
        )

    @torch.no_grad()
    def rescore(self, decisions: Decisions) -> PolicyTerms:
        """Terms under the present weights, by the same kernel as `update` (ALGORITHM.md 5.7)."""
        parts = []
        for index in _cuts(len(decisions), self.config.micro_batch):
            rows = decisions.rows(index)
            with self._precision():
                prompt = self.bundle.prompts.batch(rows.instructions, _flat(rows.pixels))
                parts.append(self.policy.terms(prompt, rows.thought, rows.tokens))
        return tree_map(lambda *xs: torch.cat(xs), *parts)

    def update(self, batch: Minibatch, *, value_only: bool = False) -> dict[str, float]:
        """One optimizer step; the figures of the whole minibatch."""
        self.optimizer.zero_grad(set_to_none=True)
        parts: dict[str, Tensor] | None = None
        for index in _cuts(len(batch.decisions), self.config.micro_batch):
            found = self._accumulate(batch.rows(index), value_only)
            parts = found if parts is None else merge_parts(parts, found)
        assert parts is not None, "an empty minibatch"
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.config.grad_clip)
        if not torch.isfinite(norm):
            raise FloatingPointError(
                f"gradient norm is {norm.item()}: the run is stopped before it is damaged"
            )
        self.optimizer.step()
        return {**{k: v.item() for k, v in parts.items()}, "grad_norm": norm.item()}

    def _accumulate(self, batch: Minibatch, value_only: bool) -> dict[str, Tensor]:
        rows = batch.decisions
        prompt = self.bundle.prompts.batch(rows.instructions, _flat(rows.pixels))
        with self._precision():
            reading = self.policy.read(self.policy.backbone.look(prompt), rows.thought)
            new = self.policy.score(reading, rows.thought, rows.tokens)
        loss = lapo_loss(
            replace(self.lapo, action_weight=0.0, stop_weight=0.0, latent_weight=0.0)
            if value_only
            else self.lapo,
            self.policy.latent,
            rows.thought.latent,
            batch.old,
            new,
            batch.advantage,
            batch.target,
            batch.weight,
        )
        loss.total.backward()  # type: ignore[no-untyped-call]
        temperature = self.policy.config.temperature
        with torch.no_grad():
            entropy = (action_entropy(reading.action_logits, temperature) * batch.weight).sum()
            stop = (stop_entropy(reading.stop_logits, temperature) * batch.weight).sum()
        return {
            **loss.parts,
            "total_loss": loss.total.detach(),
            "action_entropy": entropy,
            "stop_entropy": stop,
        }

    def _precision(self) -> AbstractContextManager[object]:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.config.autocast)


def _flat(pixels: Array) -> Array:
    return pixels.reshape(-1, *pixels.shape[2:])


def _cuts(count: int, size: int) -> Iterator[Tensor]:
    for first in range(0, count, size):
        yield torch.arange(first, min(first + size, count))
