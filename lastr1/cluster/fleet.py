"""RayFleet: collectors that play and ranks that learn, on one machine or on many."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from ray.exceptions import RayTaskError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from lastr1 import spans
from lastr1.cluster import ray
from lastr1.cluster.crew import EVALUATION, LOST, Actor, Crew, Reference
from lastr1.cluster.workers import Collector, Learnt, Rank, carry_tensors
from lastr1.config import ClusterConfig, Config
from lastr1.rollout.batch import Episode, Rollout, make_rollout
from lastr1.rollout.collect import scene_seed
from lastr1.train.evaluate import starts_of
from lastr1.train.figures import rollout_figures
from lastr1.train.reinforce import TaskSuccess, suite_starts
from lastr1.train.session import Session
from lastr1.types import UserError


class RankLost(RuntimeError):
    """A process that learns is gone, and with it a part of the weights."""


class Ranks:
    """The learner ranks, which do everything together."""

    def __init__(self, actors: Sequence[Actor]) -> None:
        self.actors = tuple(actors)

    def begin(self, method: str, *arguments: Any) -> list[Reference]:
        """Call a method of every rank; references to the answers."""
        return [getattr(actor, method).remote(*arguments) for actor in self.actors]

    def all(self, method: str, *arguments: Any) -> list[Any]:
        """Answers of every rank, in order.  `RankLost` when one is gone (the others then fail, too)."""
        references = self.begin(method, *arguments)
        try:
            found: list[Any] = ray.get(references)
        except LOST as error:
            raise RankLost(f"a learner rank was lost ({type(error).__name__})") from None
        except RayTaskError as error:
            self._look_for_the_dead(references)
            raise error.cause from None
        return found

    def _look_for_the_dead(self, references: list[Reference]) -> None:
        """A rank whose neighbour died may be heard before the death is."""
        for reference in ray.wait(references, num_returns=len(references), timeout=30)[0]:
            with contextlib.suppress(RayTaskError):
                try:
                    ray.get(reference)
                except LOST as error:
                    raise RankLost(f"a learner rank was lost ({type(error).__name__})") from None

    def close(self) -> None:
        """End all ranks."""
        for actor in self.actors:
            ray.kill(actor)


class RayFleet:
    """The same methods as the local fleet.

    With `cluster.staleness` S, episodes of the S iterations after this one are ordered before the update, so
    that collectors play while ranks learn; none is played with weights older than S updates.  What is played
    with which weights follows from the order of orders, so that runs repeat themselves also with S > 0.
    """

    def __init__(self, config: Config, crew: Crew, ranks: Ranks, success: TaskSuccess, version: int) -> None:
        self._config, self._crew, self._ranks, self._success = config, crew, ranks, success
        self._version = self._ordered = version
        self._hand_out()

    def collect(self, iteration: int) -> Rollout:
        """Episodes on the iteration's starts."""
        last = min(iteration + self._config.cluster.staleness, self._config.reinforce.iterations - 1)
        for ahead in range(self._ordered, last + 1):
            self._order(ahead)
        rollout = make_rollout(self._crew.wait(iteration))
        self._success.note(rollout_figures(rollout))
        return rollout

    def _order(self, iteration: int) -> None:
        config, suite = self._config, self._crew.suite
        starts = suite_starts(config, suite.tasks, suite.stored_states, iteration, self._success)
        self._crew.order(iteration, starts, scene_seed(config.seed, 4, iteration))
        self._ordered = iteration + 1

    def update(self, rollout: Rollout, iteration: int) -> dict[str, float]:
        """All minibatches of one iteration."""
        # Ranks learn from the stacked decisions, and ask of episodes only how many there are.
        bare = tuple(replace(episode, steps=(), after=None) for episode in rollout.episodes)
        stored = ray.put(replace(rollout, episodes=bare))
        learnt: list[Learnt] = self._ranks.all("update", stored, iteration)
        for rank in learnt:
            spans.keep(rank.spans)
        played = float(np.mean([episode.version for episode in rollout.episodes]))
        return {
            **learnt[0].figures,
            "staleness": self._version - played,
            "collectors_lost": float(self._crew.lost),
            # All episodes come here, and all go to every rank; all weights go to every collector.
            "episode_bytes": float((1 + len(learnt)) * rollout.nbytes),
            "weight_bytes": float(self._config.cluster.collectors * sum(rank.weights for rank in learnt)),
        }

    def publish(self) -> None:
        """Hand the ranks' weights to the collectors."""
        self._version += 1
        self._hand_out()

    def evaluate(self) -> list[Episode]:
        """After whatever was ordered before; the ranks wait for it."""
        config, suite = self._config, self._crew.suite
        starts = starts_of(config.env, config.evaluate, suite.tasks, suite.stored_states, config.seed)
        self._crew.order(EVALUATION, starts, None)
        return self._crew.wait(EVALUATION)

    def _hand_out(self) -> None:
        self._crew.load(self._version, self._ranks.begin("part"))

    def save(self, step: int, files: Mapping[str, bytes], score: float | None) -> None:
        """Write a checkpoint of the ranks' weights."""
        self._ranks.all("save", step, dict(files), score)


@contextlib.contextmanager
def connected(config: ClusterConfig) -> Iterator[None]:
    """Ray, as long as it is needed: the one at `address`, one of our own, or one that is connected already.

    `UserError` when it has less to offer than the recipe asks for.
    """
    if ray.is_initialized():
        yield
        return
    cpus = config.learners * config.learner_cpus + config.collectors * config.collector_cpus
    try:
        if config.address is None:
            # of our own: processes may be more than cores
            ray.init(address="local", include_dashboard=False, num_cpus=max(1, int(np.ceil(cpus))))
        else:
            ray.init(address=config.address)
    except ConnectionError as error:
        raise UserError(f"no Ray at --cluster.address {config.address} ({error}): ray start --head") from None
    try:
        _check_room(config, cpus)
        yield
    finally:
        ray.shutdown()


def _check_room(config: ClusterConfig, cpus: float) -> None:
    gpus = config.learners * config.learner_gpus + config.collectors * config.collector_gpus
    there = {"CPU": 0.0, "GPU": 0.0, **ray.cluster_resources()}
    for name, asked in (("CPU", cpus), ("GPU", gpus)):
        if asked > there[name]:
            raise UserError(
                f"learners and collectors ask for {asked:g} {name}s, the cluster has {there[name]:g}: lower "
                f"--cluster.learner-{name.lower()}s or --cluster.collector-{name.lower()}s, or add a node"
            )


Placement = Callable[[int], Any]
"""number of a collector, or rank of a learner -> where Ray should start it"""


def _spread(_: int) -> str:
    return "SPREAD"


@contextlib.contextmanager
def _reserved(config: ClusterConfig) -> Iterator[Placement]:
    """Room on one machine, and with GPUs on one GPU, for every learner and its share of the collectors."""
    beside = config.collectors // config.learners
    bundle = {
        "CPU": config.learner_cpus + beside * config.collector_cpus,
        "GPU": config.learner_gpus + beside * config.collector_gpus,
    }
    room = {name: amount for name, amount in bundle.items() if amount}
    group = ray.util.placement_group([room] * config.learners)
    try:
        if not group.wait(60):
            raise UserError(f"no machine of the cluster has {room} for a learner and {beside} collectors")
        yield lambda number: PlacementGroupSchedulingStrategy(
            group, placement_group_bundle_index=number % config.learners
        )
    finally:
        ray.util.remove_placement_group(group)


@contextlib.contextmanager
def open_crew_and_ranks(session: Session) -> Iterator[tuple[Crew, Ranks]]:
    """The processes of a session, each with the policy; `connected` beforehand."""
    config, wanted = session.config, session.config.cluster
    carry_tensors()
    with contextlib.ExitStack() as stack:
        place: Placement = _spread
        if wanted.placement == "colocated":
            place = stack.enter_context(_reserved(wanted))
        playing = ray.remote(num_cpus=wanted.collector_cpus, num_gpus=wanted.collector_gpus)(Collector)
        learning = ray.remote(num_cpus=wanted.learner_cpus, num_gpus=wanted.learner_gpus)(Rank)

        def hire(number: int) -> tuple[Actor, Reference]:
            actor = playing.options(scheduling_strategy=place(number)).remote()
            return actor, actor.open.remote(config, session.start)

        crew = Crew(hire, wanted.collectors, wanted.restarts)
        stack.callback(crew.close)
        ranks = Ranks(
            [
                learning.options(scheduling_strategy=place(rank)).remote(config, rank)
                for rank in range(wanted.learners)
            ]
        )
        stack.callback(ranks.close)
        meeting = ray.get(ranks.actors[0].host.remote())
        ranks.all("open", session, crew.suite.spec, meeting)
        yield crew, ranks
