"""Learner: the parameters, their optimizer, one update.

Axes: B decisions, E episodes, T decisions per episode, L latent slots, D width, Q truncated episodes.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import reduce
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lastr1 import spans
from lastr1.algo.lapo import PolicyTerms, lapo_loss, merge_parts
from lastr1.algo.logprob import action_entropy, stop_entropy
from lastr1.config import LapoConfig, OptimizerConfig
from lastr1.model.backbone import Prompt
from lastr1.model.heads import Reading
from lastr1.model.policy import LatentPolicy, Thought
from lastr1.model.prompt import CPU
from lastr1.model.weights import Bundle
from lastr1.rollout.batch import Decisions, Minibatch, moved, tree_map
from lastr1.train.schedule import cosine_rate


class Peer(Protocol):
    """Another process with the same weights."""

    def submit(self, job: str, *arguments: Any) -> Callable[[], Any]:
        """Begin one of the methods of a learner there; call the result to wait for its answer."""
        ...


class Review(nn.Module):
    """All that a learner computes of a policy, as one module: what can be cut among ranks is a module."""

    def __init__(self, policy: LatentPolicy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, prompt: Prompt, thought: Thought, tokens: Tensor) -> tuple[Reading, PolicyTerms]:
        """What the policy reads in recorded decisions, and their terms."""
        reading = self.policy.read(self.policy.backbone.look(prompt), thought)
        return reading, self.policy.score(reading, thought, tokens)


class Learner:
    """Re-evaluates stored decisions and improves the policy on them; peers take equal shares of the work."""

    def __init__(
        self,
        bundle: Bundle,
        lapo: LapoConfig,
        config: OptimizerConfig,
        peers: Sequence[Peer] = (),
        steps: int = 1,
    ) -> None:
        """`steps`: optimizer steps of the whole run, over which the learning rates fall."""
        self.bundle, self.lapo, self.config, self.peers, self.steps = bundle, lapo, config, peers, steps
        self.policy = bundle.policy
        self.review: nn.Module = Review(self.policy)
        if config.freeze_vision:
            self.policy.backbone.freeze_vision()
        # Two groups with rates of their own; weight decay 0 (ALGORITHM.md 5.6).  AdamW passes over what is
        # frozen, and keeps no moments of it.
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
        own, *others = shares(len(decisions), 1 + len(self.peers))
        answers = [
            peer.submit("rescore", decisions.rows(rows))
            for peer, rows in zip(self.peers, others, strict=True)
            if len(rows)
        ]
        parts = [self._terms(decisions.rows(i)) for i in torch.split(own, self.config.micro_batch)]
        parts += [answer() for answer in answers]
        return tree_map(lambda *xs: torch.cat(xs), *parts)

    def _terms(self, rows: Decisions) -> PolicyTerms:
        with self._precision(), spans.span("learner", f"rescore {len(rows)}"):
            found: tuple[Reading, PolicyTerms] = self.review(self._prompt(rows), *self._chosen(rows))
        return moved(found[1], CPU)

    def update(self, batch: Minibatch, *, value_only: bool = False) -> dict[str, float]:
        """One optimizer step; the figures of the whole minibatch."""
        parts = self.gradient(batch, value_only=value_only)
        norm = self._clip()
        if not torch.isfinite(norm):
            raise FloatingPointError(
                f"gradient norm is {norm.item()}: the run is stopped before it is damaged"
            )
        self._step()
        return {**{k: v.item() for k, v in parts.items()}, "grad_norm": norm.item()}

    def _clip(self) -> Tensor:
        """Scale the gradient down to the largest norm allowed; the norm it had."""
        return nn.utils.clip_grad_norm_(self.policy.parameters(), self.config.grad_clip)

    def _step(self) -> None:
        """One optimizer step at the scheduled rates; the optimizer counts its steps, also across a resume."""
        done = max((int(state["step"]) for state in self.optimizer.state.values()), default=0)
        peaks = (self.config.lr, self.config.value_lr)
        for group, peak in zip(self.optimizer.param_groups, peaks, strict=True):
            group["lr"] = cosine_rate(done, self.steps, peak, end=self.config.lr_end, ramp=self.config.ramp)
        with spans.span("learner", "step"):
            self.optimizer.step()

    def gradient(self, batch: Minibatch, *, value_only: bool = False) -> dict[str, Tensor]:
        """Leave the minibatch's gradient in the parameters; its figures."""
        self.optimizer.zero_grad(set_to_none=True)
        own, *others = shares(len(batch.decisions), 1 + len(self.peers))
        answers = [
            peer.submit("gradient", batch.rows(rows), value_only)
            for peer, rows in zip(self.peers, others, strict=True)
            if len(rows)
        ]
        parts = [
            self._accumulate(batch.rows(index), value_only)
            for index in torch.split(own, self.config.micro_batch)
        ]
        totals = [p.grad for p in self.policy.parameters() if p.grad is not None]
        for answer in answers:
            figures, gradients = answer()
            parts.append(figures)
            for total, part in zip(totals, gradients, strict=True):
                total.add_(part)
        return reduce(merge_parts, parts)

    def _accumulate(self, batch: Minibatch, value_only: bool) -> dict[str, Tensor]:
        with spans.span("learner", f"gradient of {len(batch.decisions)}"):
            return self._backward(batch, value_only)

    def _backward(self, batch: Minibatch, value_only: bool) -> dict[str, Tensor]:
        policy, device = self.policy, self.policy.device
        prompt, (thought, tokens) = self._prompt(batch.decisions), self._chosen(batch.decisions)
        weight = batch.weight.to(device)
        with self._precision(), policy.backbone.recomputing(self.config.checkpointing):
            reading, new = self.review(prompt, thought, tokens)
        loss = lapo_loss(
            replace(self.lapo, action_weight=0.0, stop_weight=0.0, latent_weight=0.0)
            if value_only
            else self.lapo,
            policy.latent,
            thought.latent,
            moved(batch.old, device),
            new,
            batch.advantage.to(device),
            batch.target.to(device),
            weight,
        )
        loss.total.backward()  # type: ignore[no-untyped-call]
        temperature = policy.config.temperature
        with torch.no_grad():
            entropy = (action_entropy(reading.action_logits, temperature) * weight).sum()
            stop = (stop_entropy(reading.stop_logits, temperature) * weight).sum()
        return {
            **loss.parts,
            "total_loss": loss.total.detach(),
            "action_entropy": entropy,
            "stop_entropy": stop,
        }

    def _prompt(self, rows: Decisions) -> Prompt:
        return self.bundle.prompts.batch(rows.instructions, rows.pixels, self.policy.device)

    def _chosen(self, rows: Decisions) -> tuple[Thought, Tensor]:
        return moved(rows.thought, self.policy.device), rows.tokens.to(self.policy.device)

    def _precision(self) -> AbstractContextManager[object]:
        return torch.autocast(self.policy.device.type, torch.bfloat16, enabled=self.config.autocast)


def shares(count: int, parts: int) -> tuple[Tensor, ...]:
    """Rows 0..count - 1 in `parts` runs of nearly equal length; the first is the longest."""
    return torch.arange(count).tensor_split(parts)
