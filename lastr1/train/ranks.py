"""Learner ranks: processes that hold the weights of one policy cut among them (FSDP2) and share its work.

Every rank is given the same rollout and runs the same `improve`; a rank computes an equal share of every
minibatch, gradients are summed, and denominators are those of the whole minibatch: two ranks learn what one
learns.  Runs on GPUs (nccl) and on processors (gloo).  Axes: B decisions.
"""

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from lastr1.algo.lapo import PolicyTerms, merge_parts
from lastr1.config import Config
from lastr1.model.prompt import CPU
from lastr1.model.weights import Bundle
from lastr1.rollout.batch import Decisions, Minibatch, tree_map
from lastr1.train.checkpoint import Store, load_optimizer
from lastr1.train.learner import Learner, Review, shares

BACKEND = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}
"""type of device -> what carries tensors between ranks"""


def join(store: dist.Store, rank: int, ranks: int, device: torch.device) -> None:  # type: ignore[name-defined]
    """Make this process one of `ranks` that learn together; returns when all are there."""
    dist.init_process_group(BACKEND[device.type], store=store, rank=rank, world_size=ranks)


def leave() -> None:
    """Undo `join`."""
    dist.destroy_process_group()


class RankLearner(Learner):
    """A learner that holds its part of the weights, after `join`.  All ranks must call the same methods."""

    def __init__(self, bundle: Bundle, config: Config, steps: int = 1) -> None:
        """`bundle` is whole, and the same on every rank; `steps`: optimizer steps of the whole run."""
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        self._recipe = config
        # What a checkpoint is written from: the first rank's processor has room for all weights.
        self._whole = replace(bundle, policy=copy.deepcopy(bundle.policy).to(CPU)) if self.rank == 0 else None
        if config.optimizer.freeze_vision:
            bundle.policy.backbone.freeze_vision()
        review = _cut(Review(bundle.policy))
        super().__init__(bundle, config.lapo, config.optimizer, steps=steps)
        self.review = review

    @torch.no_grad()
    def rescore(self, decisions: Decisions) -> PolicyTerms:
        """Terms under the present weights, of all decisions and on every rank."""
        own = shares(len(decisions), self.ranks)[self.rank]
        parts = []
        for index in self._portions(own, len(decisions)):
            terms = self._terms(decisions.rows(_or_first(index)))
            parts.append(tree_map(lambda x, index=index: x[: len(index)], terms))
        self._rest()
        found: PolicyTerms = tree_map(lambda *xs: torch.cat(xs), *parts)
        return tree_map(lambda x: _together(x, own, len(decisions)), found)

    def gradient(self, batch: Minibatch, *, value_only: bool = False) -> dict[str, Tensor]:
        """Leave this rank's part of the minibatch's gradient in its parameters; figures of the whole."""
        self.optimizer.zero_grad(set_to_none=True)
        count = len(batch.decisions)
        own = shares(count, self.ranks)[self.rank]
        parts = []
        for index in self._portions(own, count):
            rows = batch.rows(_or_first(index))
            if not len(index):
                rows = replace(rows, weight=torch.zeros(1))  # nothing is left to do, but others wait for us
            parts.append(self._accumulate(rows, value_only))
        return _of_all_ranks(reduce(merge_parts, parts))

    def _portions(self, own: Tensor, count: int) -> tuple[Tensor, ...]:
        """Micro-batches of this rank; every rank has as many, since all take part in every pass."""
        largest = -(-count // self.ranks)
        return own.tensor_split(-(-largest // self.config.micro_batch))

    def _clip(self) -> Tensor:
        return _full(super()._clip())

    def _rest(self) -> None:
        """After a pass without gradients, parameters are parts again."""
        assert isinstance(self.review, FSDPModule)
        self.review.reshard()

    def recall(self, directory: Path) -> None:
        """Go on with the optimizer of a checkpoint."""
        load_optimizer(directory, self.optimizer)
        for parameter, state in self.optimizer.state.items():
            assert isinstance(parameter, DTensor)
            mesh, placements = parameter.device_mesh, parameter.placements
            for name, value in state.items():
                if value.shape == parameter.shape:  # the count of steps is a number
                    state[name] = distribute_tensor(value, mesh, placements, src_data_rank=None)

    def save(self, store: Store, step: int, files: Mapping[str, bytes], score: float | None) -> None:
        """Write a checkpoint: the first rank does, with everybody's parts."""
        for name, parameter in self.policy.named_parameters():
            value = _full(parameter.detach()).to(CPU)
            if self._whole is not None:
                self._whole.policy.get_parameter(name).data.copy_(value)
        state = self.optimizer.state_dict()
        state["state"] = {
            index: {name: _full(value).to(CPU) for name, value in row.items()}
            for index, row in state["state"].items()
        }
        if self._whole is not None:
            store.save(self._whole, Gathered(state), self._recipe, step, files, score)


@dataclass(frozen=True)
class Gathered:
    """An optimizer whose state was gathered from all ranks, as `Store.save` reads it."""

    state: dict[str, Any]

    def state_dict(self) -> dict[str, Any]:
        """As torch's optimizers have it."""
        return self.state


def _cut(review: Review) -> Review:
    """Cut the weights among ranks: layer by layer, the rest as one.  Gradients are summed, not averaged."""
    # It warns of operations in place on what it returns; we do none.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)
    net = review.policy.backbone.net
    mesh = init_device_mesh(review.policy.device.type, (dist.get_world_size(),))
    for part in (*net.model.visual.blocks, *net.model.language_model.layers, review):
        fully_shard(part, mesh=mesh)
    for module in review.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    return review


def _full(value: Tensor) -> Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value


def _or_first(index: Tensor) -> Tensor:
    return index if len(index) else torch.zeros(1, dtype=torch.long)


def _together(part: Tensor, rows: Tensor, count: int) -> Tensor:
    """Rows of all ranks in their places: each adds its own to zeros."""
    whole = torch.zeros(count, *part.shape[1:], dtype=torch.uint8 if part.dtype == torch.bool else part.dtype)
    whole[rows] = part.to(whole.dtype)
    dist.all_reduce(whole)
    return whole.to(part.dtype)


def _of_all_ranks(parts: dict[str, Tensor]) -> dict[str, Tensor]:
    here = torch.stack([value.detach().to(CPU, torch.float64) for value in parts.values()])
    everybody = [torch.empty_like(here) for _ in range(dist.get_world_size())]
    dist.all_gather(everybody, here)
    return reduce(merge_parts, [dict(zip(parts, row, strict=True)) for row in everybody])
