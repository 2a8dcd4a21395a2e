"""Job: teach a base made from scratch to see, and to find what an instruction names.

A downloaded Qwen3-VL has learnt both from the web.  A policy of a million random weights has not, and
imitation alone hardly teaches it (docs/LOG.md), so it first learns from annotated pictures of the embedded
world.

Axes: B pictures, W things, V image tokens of a picture, D width, F features of a heading.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lastr1.config import Config, GroundingConfig
from lastr1.envs.annotated import THINGS, Annotated, annotate, join
from lastr1.envs.base import Start
from lastr1.envs.tabletop import TabletopEnv
from lastr1.model.weights import Bundle
from lastr1.rollout.batch import moved
from lastr1.rollout.collect import scene_seed
from lastr1.rollout.scripted import executor
from lastr1.train.schedule import cosine_rate

NAMED = 3
"""what an instruction is about: the gripper, the object, its goal"""
METRES = 0.25
"""half the table: positions are learnt in this unit"""
_FEATURES = 64


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was read off image tokens and prompt."""

    token: Float[Tensor, "B V W"]
    """score of each thing being in each image token"""
    where: Float[Tensor, "B V W 3"]
    """its position if it is there, in units of `METRES`"""
    pointer: Float[Tensor, "B 3 V"]
    """score of each image token holding what the instruction names"""
    named: Float[Tensor, "B 3 3"]
    """positions of what the instruction names"""


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What is where."""

    cell: Int[Tensor, "B W"]
    """image token that holds each thing"""
    where: Float[Tensor, "B W 3"]
    present: Bool[Tensor, "B W"]
    named: Int[Tensor, "B 3"]


class Heads(nn.Module):
    """Read-outs that are thrown away afterwards."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token = nn.Linear(width, len(THINGS))
        self.where = nn.Linear(width, len(THINGS) * 3)
        self.query = nn.Linear(width, NAMED * _FEATURES)
        self.key = nn.Linear(width, _FEATURES)
        self.named = nn.Linear(width, NAMED * 3)

    def forward(self, image: Float[Tensor, "B V D"], prompt: Float[Tensor, "B D"]) -> Found:
        """Image tokens as the language model receives them, and its state after the prompt."""
        batch, tokens, _ = image.shape
        query = self.query(prompt).reshape(batch, NAMED, _FEATURES)
        return Found(
            token=self.token(image),
            where=self.where(image).reshape(batch, tokens, len(THINGS), 3),
            pointer=query @ self.key(image).transpose(1, 2) / _FEATURES**0.5,
            named=self.named(prompt).reshape(batch, NAMED, 3),
        )


def grounding_loss(found: Found, truth: Truth) -> tuple[Tensor, dict[str, Tensor]]:
    """Which image token holds each thing, where it is, and which of them the instruction names.

    Cross-entropies over image tokens plus 10 times Huber losses of positions (knee at 0.05 `METRES`).
    """
    here = truth.cell[:, None, :]
    log_token = torch.log_softmax(found.token, dim=1).gather(1, here).squeeze(1)
    holds = torch.zeros_like(found.token).scatter_(1, here, truth.present[:, None].float())
    presence = nn.functional.binary_cross_entropy_with_logits(
        found.token, holds, pos_weight=found.token.new_tensor(4.0)
    )
    where = found.where.gather(1, here[..., None].expand(-1, -1, -1, 3)).squeeze(1)
    named_cell = truth.cell.gather(1, truth.named)
    named_where = truth.where.gather(1, truth.named[..., None].expand(-1, -1, 3))
    parts = {
        "token": -log_token[truth.present].mean(),
        "presence": 10 * presence,
        "where": 10
        * nn.functional.smooth_l1_loss(where[truth.present], truth.where[truth.present], beta=0.05),
        "pointer": nn.functional.cross_entropy(found.pointer.flatten(0, 1), named_cell.flatten()),
        "named": 10 * nn.functional.smooth_l1_loss(found.named, named_where, beta=0.05),
    }
    with torch.no_grad():
        right = (found.pointer.argmax(-1) == named_cell).float().mean(0)
        miss = (found.named - named_where).norm(dim=-1).mean(0) * METRES * 1000
    figures = {f"{name}_loss": part.detach() for name, part in parts.items()}
    for i, name in enumerate(("gripper", "object", "goal")):
        figures |= {f"{name}_pointed": right[i], f"{name}_miss_mm": miss[i]}
    return torch.stack(list(parts.values())).sum(), figures


class Grounding:
    """Draws annotated pictures and takes optimizer steps."""

    def __init__(self, bundle: Bundle, pictures: Annotated, config: GroundingConfig, seed: int) -> None:
        self.bundle, self.pictures, self.config = bundle, pictures, config
        self.generator = np.random.default_rng([seed, 6])
        self.heads = Heads(bundle.policy.backbone.width).to(bundle.policy.device)
        # The action rows, the value head and the stop are not part of this lesson.
        self.parameters = [*bundle.policy.backbone.parameters(), *self.heads.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=config.lr, weight_decay=0.0)

    def steps(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Optimizer steps to the end of the schedule, and the figures of each."""
        config = self.config
        for step in range(config.iterations):
            rate = cosine_rate(step, config.iterations, config.lr, end=0.05, ramp=100)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            index = self.generator.integers(len(self.pictures.frames), size=config.batch)
            loss, figures = self.loss(index)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
            yield step, {"loss": loss.item(), **{name: value.item() for name, value in figures.items()}}

    def loss(self, index: np.ndarray) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and figures of the given pictures [B]."""
        policy, pictures = self.bundle.policy, self.pictures
        prompt = self.bundle.prompts.batch(
            [pictures.instructions[i] for i in index],
            self.bundle.prompts.stack(pictures.frames[index]),
            policy.device,
        )
        seen = policy.backbone.look(prompt)
        image = seen.embeds[seen.is_image].reshape(len(index), -1, policy.backbone.width)
        found = self.heads(image, policy.hear(seen).state)
        return grounding_loss(found, moved(self._truth(index, image.shape[1]), policy.device))

    def _truth(self, index: np.ndarray, tokens: int) -> Truth:
        pictures, side = self.pictures, round(tokens**0.5)
        square = np.clip((pictures.pixels[index] * side).astype(np.int64), 0, side - 1)
        return Truth(
            cell=torch.from_numpy(square[..., 1] * side + square[..., 0]),
            where=torch.from_numpy(pictures.where[index] / METRES),
            present=torch.from_numpy(pictures.present[index]),
            named=torch.from_numpy(pictures.named[index]),
        )


def annotated_pictures(config: Config, progress: Callable[[], None]) -> Annotated:
    """`grounding.episodes` disturbed expert episodes, the suite's tasks in turn; always the same pictures."""
    count, workers = config.grounding.episodes, max(1, config.env.workers)
    parts = []
    with executor(workers) as pool:
        assert pool is not None
        for part in pool.map(partial(_annotate, config), range(count), chunksize=16):
            parts.append(part)
            progress()
    return join(parts)


def _annotate(config: Config, number: int) -> Annotated:
    env = TabletopEnv(config.env.suite, size=config.env.image)
    scene = scene_seed(config.seed, 2, 1_000_000 + number)
    start = Start(task=number % len(env.tasks), seed=scene)
    return annotate(env, start, noise=config.collect.noise, seed=scene)
