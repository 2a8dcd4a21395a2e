"""Job: supervised warm-up (ALGORITHM.md 6).

Axes: B samples, L latent slots, D width, N action tokens, C control steps, A action size.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import Tensor

from lastr1.algo.imitation import (
    ImitationLabels,
    ImitationLoss,
    ImitationTerms,
    imitation_counts,
    imitation_loss,
)
from lastr1.config import WarmupConfig
from lastr1.demos.dataset import Batch, DemonstrationSet
from lastr1.demos.teacher import Targets
from lastr1.model.backbone import Embedded, Prompt
from lastr1.model.heads import Reading
from lastr1.model.policy import LatentPolicy, Thought
from lastr1.model.weights import Bundle
from lastr1.rollout.batch import moved
from lastr1.train.compress import LEARNT, compressed_constant, compressor
from lastr1.train.schedule import cosine_rate
from lastr1.types import Array, UserError

Reader = Callable[[Thought, bool], Reading]
"""a pass: what is in the slots, and whether actions are read"""
STATE, COMPRESSOR = "teaching.json", "compressor.safetensors"


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """One batch, tokenised."""

    prompt: Prompt
    labels: ImitationLabels
    """`latent` holds every slot's target, those past the episode's end filled with its last frame; with the
    gradient of the compressor that makes them, where one does (8.5)"""


class Teaching:
    """Draws lessons from demonstrations and takes optimizer steps."""

    def __init__(
        self, bundle: Bundle, data: DemonstrationSet, targets: Targets, config: WarmupConfig, seed: int
    ) -> None:
        self.bundle, self.data, self.targets, self.config = bundle, data, targets, config
        self.seed, self.generator = seed, np.random.default_rng([seed, 3])
        self.latent_rms = 1.0
        policy = bundle.policy
        self.compress = compressor(config.target, policy.backbone.width, targets).to(policy.device)
        self.compresses = config.target in LEARNT
        if config.freeze_vision:
            bundle.policy.backbone.freeze_vision()
        self.parameters = [*policy.parameters(), *self.compress.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=config.lr, weight_decay=0.0)

    def steps(self, first: int = 0) -> Iterator[tuple[int, dict[str, float]]]:
        """Optimizer steps from `first` to the end of the schedule, and the figures of each."""
        for step in range(first, self.config.iterations):
            rate = learning_rate(self.config, step)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            loss = self.loss(self.lesson())
            self.optimizer.zero_grad(set_to_none=True)
            loss.total.backward()  # type: ignore[no-untyped-call]
            norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.grad_clip)
            if not torch.isfinite(norm):
                raise FloatingPointError(f"gradient norm is {norm.item()} at warm-up step {step}")
            self.optimizer.step()
            figures = {name: part.item() for name, part in loss.parts.items()}
            yield step, {"loss": loss.total.item(), **figures, "grad_norm": norm.item(), "lr": rate}

    def loss(self, lesson: Lesson) -> ImitationLoss:
        """Two passes: latents under teacher forcing, then actions and stops on the policy's own (6.4).

        With p > 2 passes, on what pass p - 1 predicted: in the first p - 1 slots that is its own feedback.
        """
        policy, labels = self.bundle.policy, _still(lesson.labels)
        used = policy.used(labels.groups)
        with (
            torch.autocast(policy.device.type, torch.bfloat16, enabled=self.config.autocast),
            policy.backbone.recomputing(self.config.checkpointing),
        ):
            read = self._reader(policy.backbone.look(lesson.prompt))
            if policy.config.latents:
                reading, lever = self._forced(read, lesson)
                mean = reading.mean
                rms = mean.detach()[used].square().mean().sqrt().item()
                self.latent_rms = 0.99 * self.latent_rms + 0.01 * rms
                if self.config.latent_passes > 1:
                    reading = read(
                        Thought(latent=self._fed(read, mean, labels.groups), groups=labels.groups), True
                    )
            else:
                mean, lever = labels.latent, labels.latent.new_zeros(())
                reading = read(Thought(latent=mean, groups=labels.groups), True)
        loss = imitation_loss(self.config, labels, self._terms(mean, reading), imitation_counts(labels))
        return replace(loss, total=loss.total + lever)

    def _forced(self, read: Reader, lesson: Lesson) -> tuple[Reading, Tensor]:
        """What is read with the targets in the slots; and 0, through which a compressor learns (8.5).

        It learns from the actions after its own targets alone; the policy learns nothing from those.
        """
        slots, groups = rescale(lesson.labels.latent, self.latent_rms), lesson.labels.groups
        if not self.compresses:
            act = self.config.latent_passes == 1
            return read(Thought(latent=slots, groups=groups), act), slots.new_zeros(())
        fed = slots.detach().requires_grad_()
        reading = read(Thought(latent=fed, groups=groups), True)
        actions = replace(self.config, cosine_weight=0.0, stop_weight=0.0)
        terms = self._terms(reading.mean, reading)
        labels = _still(lesson.labels)
        loss = imitation_loss(actions, labels, terms, imitation_counts(labels))
        (slope,) = torch.autograd.grad(loss.total, fed, retain_graph=True)
        lever = (slots * slope).sum()
        return reading, lever - lever.detach()

    def _fed(self, read: Reader, mean: Tensor, groups: Tensor) -> Tensor:
        """What the last pass is fed, [B, L, D]; no gradient goes further back than the pass that made it."""
        for number in range(2, self.config.latent_passes):
            with torch.set_grad_enabled(torch.is_grad_enabled() and number + 1 == self.config.latent_passes):
                mean = read(Thought(latent=mean.detach(), groups=groups), False).mean
        return mean

    def _terms(self, mean: Tensor, reading: Reading) -> ImitationTerms:
        return ImitationTerms(
            latent=mean,
            action_logits=reading.action_logits,
            stop_logits=reading.stop_logits,
            vocab_logsumexp_t1=self.bundle.policy.vocabulary_logsumexp(reading.stop_state, 1.0),
        )

    def _reader(self, seen: Embedded) -> Reader:
        """Reads a thought after the prompt, which is read once where a cache can hold it."""
        policy = self.bundle.policy
        if self.config.checkpointing:
            return lambda thought, _: policy.read(seen, thought)
        heard = policy.hear(seen)
        return lambda thought, act: policy.read_on(heard, thought, act=act)

    def lesson(self) -> Lesson:
        """A random batch with thought lengths drawn uniformly from 1..K groups."""
        candidates = self.bundle.policy.config.stop_candidates
        batch = self.data.draw(self.config.batch, self.generator)
        lengths = self.generator.integers(min(1, candidates), candidates + 1, size=self.config.batch)
        crops = self.config.image_augment == "random_crop"
        corners = self.generator.random((self.config.batch, 2)) if crops else None
        return self.lesson_of(batch, torch.from_numpy(lengths), corners)

    def lesson_of(self, batch: Batch, groups: Tensor, corners: Array | None = None) -> Lesson:
        """Tokenise a batch for the given thought lengths [B]; crops at `corners` [B, 2], or the centre."""
        policy, count, width = self.bundle.policy, len(batch.tasks), len(self.bundle.spec.action)
        latents = policy.config.latents
        views = torch.from_numpy(self.targets.vectors[batch.targets[:, :latents]])
        labels = ImitationLabels(
            latent=self.compress(views.to(policy.device)),
            latent_mask=torch.from_numpy(batch.target_valid[:, :latents]) & policy.used(groups),
            tokens=torch.from_numpy(self.bundle.codec.encode(batch.actions)).reshape(count, -1),
            action_mask=torch.from_numpy(batch.action_valid.repeat(width, axis=1)),
            groups=groups,
        )
        return Lesson(prompt=_prompt(self.bundle, batch, corners), labels=moved(labels, policy.device))

    def constant(self) -> dict[str, float]:
        """The constant baseline by name, where it never changes."""
        return {} if self.compresses else {"constant_cosine": self.targets.constant_cosine}

    def constant_cosine(self) -> float:
        """What a constant thought would score against the targets, as they are now (6.3)."""
        if self.compresses:
            return compressed_constant(self.compress, self.targets, self.bundle.policy.device)
        return self.targets.constant_cosine

    def memory(self) -> dict[str, bytes]:
        """What the lessons to come depend on besides weights and moments: files for a checkpoint."""
        facts = {
            "generator": self.generator.bit_generator.state,
            "latent_rms": self.latent_rms,
            "demonstrations": self._digest(),
        }
        files = {STATE: (json.dumps(facts, indent=1) + "\n").encode()}
        if self.compresses:
            files[COMPRESSOR] = serialize(self.compress.state_dict())
        return files

    def recall(self, directory: Path) -> None:
        """Go on where `memory` was written.  `UserError`: nothing to go on from, or other demonstrations."""
        try:
            facts = json.loads((directory / STATE).read_text())
            found, self.latent_rms = facts["demonstrations"], float(facts["latent_rms"])
            self.generator.bit_generator.state = facts["generator"]
            if self.compresses:
                self.compress.load_state_dict(load_file(directory / COMPRESSOR))
        except (KeyError, OSError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
            reason = str(error).split("\n")[0]
            raise UserError(
                f"{directory} cannot be resumed from ({reason}): begin again with --out"
            ) from None
        if found != self._digest():
            raise UserError(f"{directory} was taught from other demonstrations: use the --demos of its start")

    def _digest(self) -> str:
        data = self.data
        parts = (data.tasks, data.steps, data.states, data.actions)
        return sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()


def learning_rate(config: WarmupConfig, step: int) -> float:
    """The schedule of the warm-up (6.6)."""
    return cosine_rate(step, config.iterations, config.lr, end=config.lr_end, ramp=config.ramp)


def calibrate(bundle: Bundle, data: DemonstrationSet, seed: int, decisions: int = 256) -> float:
    """Fix the noise of the run to come by the latents thought on demonstrated frames (4.3)."""
    generator = np.random.default_rng([seed, 4])

    def prompts() -> Iterator[Prompt]:
        for _ in range(-(-decisions // 64)):
            yield _prompt(bundle, data.draw(64, generator))

    return fix_latent_scale(bundle.policy, prompts())


@torch.no_grad()
def fix_latent_scale(policy: LatentPolicy, prompts: Iterable[Prompt]) -> float:
    """RMS of the latents thought on these prompts, which scales the noise from now on (4.3)."""
    total, count = 0.0, 0
    for prompt in prompts:
        terms = policy.decide(prompt).terms
        total += float(terms.latent[terms.latent_used].square().sum())
        count += int(terms.latent_used.sum()) * policy.backbone.width
    rms = math.sqrt(total / count) if count else 1.0
    policy.calibrate(rms)
    return rms


def _prompt(bundle: Bundle, batch: Batch, corners: Array | None = None) -> Prompt:
    """What the policy sees of a batch; crops at `corners` [B, 2], or the centre."""
    prompts = bundle.prompts
    corners = np.full((len(batch.tasks), 2), 0.5) if corners is None else corners
    pixels = [
        prompts.pixels(batch.images[camera][i], (x, y))
        for i, (x, y) in enumerate(corners)
        for camera in prompts.cameras
    ]
    return prompts.batch(batch.instructions, np.stack(pixels), bundle.policy.device)


def _still(labels: ImitationLabels) -> ImitationLabels:
    """A target is never pulled towards the thought."""
    return replace(labels, latent=labels.latent.detach())


def rescale(target: Tensor, rms: float) -> Tensor:
    """Vectors of a given RMS each, in their own directions."""
    own = target.square().mean(-1, keepdim=True).sqrt()
    return target * (rms / own.clamp(min=1e-6))
