"""Updates of policy and critics from transitions of both streams (ALGORITHM.md 9).

`algo/interactive.py` says how latents and the stop enter the loss.

Axes: B transitions, C control steps, A action size, N = C*A action tokens, D width.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import Tensor

from lastr1.algo.interactive import cloning_loss, critic_loss, guided_loss, td_target
from lastr1.algo.logprob import draw_actions
from lastr1.config import Config
from lastr1.model import codec
from lastr1.model.backbone import Prompt
from lastr1.model.critic import Critics
from lastr1.model.policy import Thought
from lastr1.model.weights import Bundle
from lastr1.rollout.batch import tree_map
from lastr1.rollout.collect import draw_noise, scene_seed
from lastr1.train.actor import freeze
from lastr1.train.buffers import Batch, Buffers
from lastr1.train.checkpoint import load_optimizer
from lastr1.types import Array, Floats, UserError

CRITICS = "critics.safetensors"
DICE, DRAWS = 6, 7
"""streams of seeds: draws of an update, and the choice of its transitions"""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """A batch that the present policy has thought about, before and after every transition."""

    instructions: list[str]
    pixels: Array
    thought: Thought
    state: Float[Tensor, "B D"]
    """at the stop"""
    after: Float[Tensor, "B D"]
    """the same, one transition later"""
    next_chunk: Float[Tensor, "B N"]
    """drawn there, as `chunk`"""
    chunk: Float[Tensor, "B N"]
    """executed, -1..1; 0 past its end"""
    tokens: Int64[Tensor, "B N"]
    """executed, bins"""
    valid: Bool[Tensor, "B N"]
    """False past its end"""
    human: Bool[Tensor, "B"]
    reward: Float[Tensor, "B"]
    discount: Float[Tensor, "B"]
    terminated: Bool[Tensor, "B"]


class InteractiveLearner:
    """Policy, critics and their optimizer."""

    def __init__(self, bundle: Bundle, config: Config) -> None:
        job, policy = config.interactive, bundle.policy
        self.bundle, self.config, self.job, self.policy = bundle, config, job, policy
        freeze(policy, config)
        torch.manual_seed(scene_seed(config.seed, DICE, 0))
        self.critics = Critics(
            policy.backbone.width, policy.action_tokens, count=job.critics, hidden=job.critic_hidden
        ).to(policy.device)
        self.targets = self.critics.copy()
        self.weights = [p for p in policy.parameters() if p.requires_grad]
        # One optimizer, so that one file resumes it; it passes over the group that has no gradient.
        self.optimizer = torch.optim.AdamW(
            [
                {"params": self.weights, "lr": job.lr},
                {"params": list(self.critics.parameters()), "lr": job.critic_lr},
            ],
            weight_decay=0.0,
        )

    def update(self, buffers: Buffers, step: int) -> dict[str, float]:
        """`critic_updates` steps of the critics, each on a batch of its own, and one of the policy."""
        figures: dict[str, float] = {}
        for i in range(self.job.critic_updates):
            number = step * self.job.critic_updates + i
            batch = buffers.draw(self.job.batch, np.random.default_rng([self.config.seed, DRAWS, number]))
            lesson = self.study(batch, number)
            figures |= self.improve_critics(lesson)
        if step >= self.job.critic_first:
            figures |= self.improve_policy(lesson, step)
        return figures

    @torch.no_grad()
    def study(self, batch: Batch, number: int) -> Lesson:
        """Think anew about both sides of every transition; draw the chunk that would come next."""
        policy, size = self.policy, len(batch.instructions)
        pixels = np.concatenate([batch.pixels, batch.next_pixels])
        prompt = self._prompt(batch.instructions * 2, pixels)
        seeds = [scene_seed(self.config.seed, DICE, 1 + 4096 * number + row) for row in range(2 * size)]
        decision = policy.decide(prompt, draw_noise(policy, seeds))
        played = np.arange(policy.config.chunk)[None] < batch.steps[:, None]  # [B, C]
        valid = self._tensor(np.repeat(played, batch.actions.shape[-1], axis=1))
        share = batch.steps / policy.config.chunk
        return Lesson(
            instructions=batch.instructions,
            pixels=batch.pixels,
            thought=tree_map(lambda x: x[:size], decision.thought),
            state=decision.state[:size],
            after=decision.state[size:],
            next_chunk=self._as_played(decision.tokens[size:]),
            chunk=self._numbers(batch.actions) * valid,
            tokens=self._tensor(self.bundle.codec.encode(batch.actions).reshape(size, -1)),
            valid=valid,
            human=self._tensor(batch.is_intervention),
            reward=self._tensor(batch.reward),
            discount=self._tensor((self.job.discount**share).astype(np.float32)),
            terminated=self._tensor(batch.terminated),
        )

    def improve_critics(self, lesson: Lesson) -> dict[str, float]:
        """One step towards the targets, of which the slow copies then take a little."""
        target = td_target(
            lesson.reward,
            lesson.discount,
            lesson.terminated,
            self.targets(lesson.after, lesson.next_chunk),
        )
        value = self.critics(lesson.state, lesson.chunk)
        loss = critic_loss(value, target)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._step(list(self.critics.parameters()))
        self.targets.follow(self.critics, self.job.target_rate)
        return {
            "critic_loss": loss.item(),
            "value": value.mean().item(),
            "value_gap": (value[0] - value[-1]).abs().mean().item(),
        }

    def improve_policy(self, lesson: Lesson, step: int) -> dict[str, float]:
        """One step of cloning what people did and of preferring what the critics prefer."""
        self.optimizer.zero_grad(set_to_none=True)
        size = len(lesson.reward)
        clone = lesson.valid & lesson.human[:, None]
        count = float(clone.sum())
        generator = torch.Generator().manual_seed(scene_seed(self.config.seed, DRAWS, step))
        uniform = torch.rand(self.job.guided_draws, *lesson.tokens.shape, generator=generator)
        figures = {"cloning_loss": 0.0, "guided_loss": 0.0}
        for rows in torch.split(torch.arange(size), self.config.optimizer.micro_batch):
            cloning, guided = self._losses(lesson, rows, clone[rows], count, uniform[:, rows])
            total = self.job.cloning_weight * cloning + self.job.guided_weight * guided / size
            total.backward()  # type: ignore[no-untyped-call]
            figures["cloning_loss"] += cloning.item()
            figures["guided_loss"] += guided.item() / size
        return {**figures, "grad_norm": self._step(self.weights)}

    def _losses(
        self, lesson: Lesson, rows: Tensor, clone: Tensor, count: float, uniform: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Cloning (its share of the batch's mean) and guidance (summed over rows)."""
        policy, optimizer = self.policy, self.config.optimizer
        prompt = self._prompt([lesson.instructions[i] for i in rows.tolist()], lesson.pixels[rows.numpy()])
        thought = tree_map(lambda x: x[rows], lesson.thought)
        with (
            torch.autocast(policy.device.type, torch.bfloat16, enabled=optimizer.autocast),
            policy.backbone.recomputing(optimizer.checkpointing),
        ):
            logits = policy.read(policy.backbone.look(prompt), thought).action_logits
        cloning = cloning_loss(logits, lesson.tokens[rows], clone, count, self.job.cloning_smoothing)
        temperature = policy.config.temperature
        drawn = [draw_actions(logits.detach(), temperature, u.to(logits)) for u in uniform]
        with torch.no_grad():
            value = [self.critics(lesson.state[rows], self._as_played(t)).amin(0) for t in drawn]
        guided = guided_loss(logits, torch.stack(drawn, dim=1), torch.stack(value, dim=1), temperature)
        return cloning, guided.sum()

    def _step(self, parameters: list[torch.nn.Parameter]) -> float:
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.job.grad_clip)
        if not torch.isfinite(norm):
            raise FloatingPointError(
                f"gradient norm is {norm.item()}: the run is stopped before it is damaged"
            )
        self.optimizer.step()
        return norm.item()

    def _prompt(self, instructions: list[str], pixels: Array) -> Prompt:
        return self.bundle.prompts.batch(instructions, pixels, self.policy.device)

    def _as_played(self, tokens: Tensor) -> Tensor:
        """Drawn bins as the robot would play them (grippers open or closed), in the critics' numbers."""
        bins = tokens.cpu().numpy().reshape(len(tokens), self.policy.config.chunk, -1)
        return self._numbers(self.bundle.codec.decode(bins))

    def _numbers(self, actions: Floats) -> Tensor:
        """Robot units [B, C, A] -> [B, C*A] in -1..1, on the grid of the bins."""
        numbers = codec.decode(self.bundle.codec.encode(actions)).astype(np.float32)
        return self._tensor(numbers.reshape(len(actions), -1))

    def _tensor(self, values: Array) -> Tensor:
        return torch.from_numpy(values).to(self.policy.device)

    def memory(self) -> dict[str, bytes]:
        """A file for a checkpoint."""
        both = {"critics": self.critics, "targets": self.targets}
        found = {f"{name}.{k}": v for name, net in both.items() for k, v in net.state_dict().items()}
        return {CRITICS: serialize(found)}

    def recall(self, directory: Path) -> None:
        """Go on where `memory` was written."""
        try:
            stored = load_file(directory / CRITICS)
        except OSError as error:
            raise UserError(f"{directory} cannot be resumed from ({error}): begin again with --out") from None
        for name, net in (("critics", self.critics), ("targets", self.targets)):
            net.load_state_dict({k: stored[f"{name}.{k}"] for k in net.state_dict()})
        load_optimizer(directory, self.optimizer)
