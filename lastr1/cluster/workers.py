"""What runs in Ray's processes: a collector plays, a rank learns; `fleet.py` makes actors of them."""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from lastr1 import spans
from lastr1.cluster import ray
from lastr1.cluster.weights import install, part_of, size
from lastr1.config import Config
from lastr1.envs.base import Start
from lastr1.rollout.batch import Episode, Rollout
from lastr1.spans import Span
from lastr1.spec import RobotSpec
from lastr1.train import run
from lastr1.train.device import device_of
from lastr1.train.ranks import RankLearner, join
from lastr1.train.reinforce import improve
from lastr1.train.session import Session
from lastr1.train.team import Team, open_team
from lastr1.types import Array


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What a collector's simulators are."""

    spec: RobotSpec
    tasks: int
    stored_states: int


@dataclass(frozen=True, kw_only=True)
class Played:
    """What a collector hands over."""

    episodes: list[Episode]
    spans: list[Span]
    """who worked when"""


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """What a rank says of an update."""

    figures: dict[str, float]
    spans: list[Span]
    """who worked when"""
    weights: int
    """bytes of its part of the trained weights"""


class Collector:
    """A process that plays: the policy, and simulators beside it."""

    def __init__(self) -> None:
        carry_tensors()
        self._stack = ExitStack()

    def open(self, config: Config, checkpoint: Path) -> Suite:
        """Read the policy and start the simulators."""
        run.begin(config)
        alone = replace(config, processes=1)
        self._team: Team = self._stack.enter_context(open_team(alone, checkpoint, training=True))
        pool = self._team.pool
        return Suite(spec=pool.spec, tasks=len(pool.tasks), stored_states=pool.stored_states)

    def load(self, version: int, *parts: dict[str, Array]) -> None:
        """Play with these weights from now on."""
        install(self._team.bundle.policy, parts)
        self._team.version = version

    def play(self, starts: list[Start], noise: int | None, first: int) -> Played:
        """One episode per start, numbered from `first`."""
        return Played(episodes=self._team.play(starts, noise=noise, first=first), spans=spans.taken())


class Rank:
    """A process that learns, with its part of the weights."""

    def __init__(self, config: Config, rank: int) -> None:
        carry_tensors()
        run.begin(config)
        self._config, self._rank = config, rank

    def host(self) -> tuple[str, int]:
        """Open the meeting point of all ranks here; its address."""
        address = ray.util.get_node_ip_address()
        self._meeting = TCPStore(address, 0, is_master=True, wait_for_workers=False)
        return address, self._meeting.port

    def open(self, session: Session, spec: RobotSpec, meeting: tuple[str, int]) -> None:
        """Find the other ranks, read the policy and keep a part of it."""
        config, device = self._config, device_of(self._config)
        store = self._meeting if self._rank == 0 else TCPStore(*meeting, is_master=False)
        join(store, self._rank, config.cluster.learners, device)
        bundle = run.load_policy(session.start, spec, device, config.policy, config.adapter)
        self._learner, self._store = RankLearner(bundle, config, session.steps), session.store
        if session.found is not None:
            self._learner.recall(session.found)

    def update(self, rollout: Rollout, iteration: int) -> Learnt:
        """All minibatches of one iteration, together with the other ranks."""
        figures = improve(self._learner, rollout, self._config, iteration)
        return Learnt(figures=figures, spans=spans.taken(), weights=size(self._learner.policy))

    def part(self) -> dict[str, Array]:
        """Its part of the trained weights."""
        return part_of(self._learner.policy)

    def save(self, step: int, files: dict[str, bytes], score: float | None) -> None:
        """Write a checkpoint, together with the other ranks."""
        self._learner.save(self._store, step, files, score)


def carry_tensors() -> None:
    """In this process, tensors travel as arrays: Ray would send the whole storage behind every row of one."""
    ray.util.register_serializer(
        torch.Tensor, serializer=_array, deserializer=lambda array: torch.from_numpy(np.array(array))
    )


def _array(tensor: torch.Tensor) -> Array:
    return tensor.detach().cpu().numpy()
