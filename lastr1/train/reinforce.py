"""Job: LAPO.  Collect, score, improve, publish.

Axes: E episodes, T decisions per episode, B decisions.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from lastr1 import spans
from lastr1.algo.baselines import grpo, mixed, rloo
from lastr1.algo.gae import Advantages, gae
from lastr1.algo.lapo import PolicyTerms, decision_weights
from lastr1.algo.masked import whiten
from lastr1.config import Config, ReinforceConfig
from lastr1.envs.base import Start
from lastr1.rollout.batch import Episode, Minibatch, Rollout, make_rollout, tree_map
from lastr1.rollout.collect import Player, scene_seed
from lastr1.train.evaluate import starts_of
from lastr1.train.figures import evaluation_figures, explained_variance, rollout_figures
from lastr1.train.learner import Learner
from lastr1.train.price import LatentPrice


class Fleet(Protocol):
    """Where episodes come from and gradients go: one machine, or a cluster."""

    def collect(self, iteration: int) -> Rollout:
        """Play one iteration's episodes with the published weights."""

    def update(self, rollout: Rollout, iteration: int) -> dict[str, float]:
        """Improve the learner's weights; figures of the update."""

    def publish(self) -> None:
        """Hand the learner's weights to whoever plays."""

    def evaluate(self) -> list[Episode]:
        """Greedy episodes on the recipe's evaluation starts, with the published weights."""


class TaskSuccess:
    """How often each task succeeded of late, as a running mean of iterations (weight of the newest 0.2)."""

    def __init__(self, tasks: Sequence[int]) -> None:
        self.rate = dict.fromkeys(tasks, 0.0)

    def note(self, figures: Mapping[str, float]) -> None:
        """Take in the figures of one iteration."""
        for task, rate in self.rate.items():
            if (name := f"success_task_{task}") in figures:
                self.rate[task] = rate + 0.2 * (figures[name] - rate)

    def choose(self, count: int) -> list[int]:
        """`count` tasks in proportion to their failures; each counts as failing one time in 20 at least."""
        tasks = list(self.rate)
        failing = np.array([max(0.05, 1 - rate) for rate in self.rate.values()])
        bounds = np.cumsum(failing) / failing.sum()
        return [tasks[int(np.searchsorted(bounds, (i + 0.5) / count))] for i in range(count)]


def trained_tasks(config: Config, tasks: int) -> tuple[int, ...]:
    """The recipe's choice among the `tasks` of its suite."""
    return config.env.tasks if config.env.tasks is not None else tuple(range(tasks))


@dataclass(frozen=True, kw_only=True)
class LocalFleet:
    """One process that plays and learns, with simulators beside it."""

    config: Config
    player: Player
    learner: Learner
    success: TaskSuccess
    progress: Callable[[Episode], None] = lambda _: None

    def collect(self, iteration: int) -> Rollout:
        """Episodes on the iteration's starts."""
        starts = training_starts(self.config, self.player, iteration, self.success)
        noise = scene_seed(self.config.seed, 4, iteration)
        rollout = make_rollout(self.player.play(starts, noise=noise, progress=self.progress))
        self.success.note(rollout_figures(rollout))
        return rollout

    def update(self, rollout: Rollout, iteration: int) -> dict[str, float]:
        """All minibatches of one iteration."""
        return improve(self.learner, rollout, self.config, iteration)

    def publish(self) -> None:
        """Player and learner share their weights here: only the version moves on."""
        self.player.version += 1

    def evaluate(self) -> list[Episode]:
        """Played by this machine's processes."""
        config, pool = self.config, self.player.pool
        starts = starts_of(config.env, config.evaluate, len(pool.tasks), pool.stored_states, config.seed)
        return self.player.play(starts, noise=None)


def training_starts(
    config: Config, player: Player, iteration: int, success: TaskSuccess | None = None
) -> list[Start]:
    """Starts of one iteration in the simulators of `player`."""
    return suite_starts(config, len(player.pool.tasks), player.pool.stored_states, iteration, success)


def suite_starts(
    config: Config, suite_tasks: int, stored_states: int, iteration: int, success: TaskSuccess | None
) -> list[Start]:
    """Starts of one iteration: fresh scenes (see `task_choice`), or stored states without replacement.

    Each stands there `reinforce.group` times in a row; draws differ by episode, so the episodes do too.
    `benchmark` draws from two passes over all stored states, shuffled together (ALGORITHM.md 7.2).
    """
    group = config.reinforce.group
    count = config.reinforce.episodes // group
    tasks = trained_tasks(config, suite_tasks)
    if config.reinforce.train_states == "fresh":
        first = iteration * count
        chosen = [tasks[i % len(tasks)] for i in range(count)]
        if success is not None and config.reinforce.task_choice == "failures":
            chosen = success.choose(count)
        return [
            Start(task=task, seed=scene_seed(config.seed, 0, first + i))
            for i, task in enumerate(chosen)
            for _ in range(group)
        ]
    every = [Start(task=task, state=state) for task in tasks for state in range(stored_states)] * 2
    order = np.random.default_rng([config.seed, iteration]).permutation(len(every))
    return [every[i] for i in order[:count] for _ in range(group)]


def reinforce(
    fleet: Fleet, config: ReinforceConfig, first: int, deadline: float, price: LatentPrice
) -> Iterator[tuple[int, dict[str, float]]]:
    """Iterations from `first`, until there are enough or `time.perf_counter()` passes `deadline`.

    What thoughts cost is taken from the rewards before anybody learns from them.
    """
    for iteration in range(first, config.iterations):
        began = time.perf_counter()
        if began > deadline:
            return
        with spans.span("run", "collect"):
            rollout = fleet.collect(iteration)
        played = time.perf_counter()
        with spans.span("run", "update"):
            figures = fleet.update(price.charge(rollout), iteration)
        with spans.span("run", "publish"):
            fleet.publish()
        learnt = time.perf_counter()
        evaluating = config.evaluate_every and (iteration + 1) % config.evaluate_every == 0
        yield (
            iteration,
            {
                **rollout_figures(rollout),
                **figures,
                **price.settle(rollout),
                **(_evaluate(fleet) if evaluating else {}),
                "collect_seconds": played - began,
                "update_seconds": learnt - played,
            },
        )


def _evaluate(fleet: Fleet) -> dict[str, float]:
    with spans.span("run", "evaluate"):
        began = time.perf_counter()
        found = evaluation_figures(make_rollout(fleet.evaluate()))
    return {**found, "evaluate_seconds": time.perf_counter() - began}


def _from_critic(learner: Learner, rollout: Rollout, old: PolicyTerms, config: Config) -> Advantages:
    lapo = config.lapo
    last_value = torch.zeros(len(rollout.episodes))
    if rollout.after is not None and lapo.on_truncation == "bootstrap":
        recompute = config.reinforce.recompute_old
        after = learner.rescore(rollout.after) if recompute else rollout.after.terms
        last_value[rollout.truncated] = after.value
    return gae(
        rollout.reward * lapo.reward_scale,
        rollout.pad(old.value),
        last_value,
        rollout.valid,
        discount=lapo.discount,
        trace=lapo.trace,
    )


def _from_group(
    compare: Callable[[Tensor, int], Tensor], rollout: Rollout, old: PolicyTerms, config: Config
) -> Advantages:
    """Every decision of an episode gets the episode's advantage; the value is its own target."""
    advantage = compare(rollout.reward.sum(1), config.reinforce.group)
    return Advantages(advantage=advantage[:, None] * rollout.valid, target=rollout.pad(old.value))


Estimator = Callable[[Learner, Rollout, PolicyTerms, Config], Advantages]
ESTIMATORS: dict[str, Estimator] = {
    "gae": _from_critic,
    "grpo": lambda _, *given: _from_group(grpo, *given),
    "rloo": lambda _, *given: _from_group(rloo, *given),
}
"""`lapo.advantage` -> advantages of a rollout, not whitened"""


def improve(learner: Learner, rollout: Rollout, config: Config, iteration: int) -> dict[str, float]:
    """Recompute old terms, advantages, minibatches by episode, optimizer steps (ALGORITHM.md 5.5, 5.8)."""
    lapo, job = config.lapo, config.reinforce
    old = learner.rescore(rollout.decisions) if job.recompute_old else rollout.decisions.terms
    valid = rollout.valid
    found = ESTIMATORS[lapo.advantage](learner, rollout, old, config)
    advantage = whiten(found.advantage, valid) if lapo.whiten else found.advantage
    generator = torch.Generator().manual_seed(scene_seed(config.seed, 5, iteration))
    value_only = iteration < job.value_only_iterations
    teaching = _teaching(rollout, job)
    figures: list[dict[str, float]] = []
    for _ in range(job.epochs):
        order = teaching[torch.randperm(len(teaching), generator=generator)]
        for episodes in order.chunk(job.minibatches):
            here = torch.zeros_like(valid)
            here[episodes] = valid[episodes]
            index = here[valid].nonzero().squeeze(1)
            batch = Minibatch(
                decisions=rollout.decisions.rows(index),
                old=tree_map(lambda x, index=index: x[index], old),
                advantage=advantage[here],
                target=found.target[here],
                weight=decision_weights(here, lapo.average)[here],
            )
            figures.append(learner.update(batch, value_only=value_only))
    first_ratio = figures[0]["action_ratio_max"]
    groups = rollout.decisions.thought.groups.float()
    gap = float((old.action_logp - rollout.decisions.terms.action_logp).abs().max())
    return {
        **{name: float(np.mean([f[name] for f in figures])) for name in figures[0]},
        "first_ratio_max": first_ratio,
        "advantage_std": float(found.advantage[valid].std(correction=0)),
        # the old terms are the recorded ones: the first ratio alone tells acting from learning
        "recorded_gap": gap if job.recompute_old else math.log(first_ratio),
        # a single step is taken at ratio 1, and the critic's steps leave it there
        **(
            {"last_ratio_max": figures[-1]["action_ratio_max"]} if len(figures) > 1 and not value_only else {}
        ),
        **({"groups_std": float(groups.std(correction=0))} if config.policy.stop_candidates > 1 else {}),
        **(
            {"explained_variance": explained_variance(old.value, found.target[valid])}
            if lapo.advantage == "gae"
            else {}
        ),
    }


def _teaching(rollout: Rollout, job: ReinforceConfig) -> Int[Tensor, "some"]:
    """Episodes that are learnt from: all, or those of groups whose returns differ."""
    every = torch.ones(len(rollout.episodes), dtype=torch.bool)
    some = mixed(rollout.reward.sum(1), job.group) if job.skip_uniform_groups else every
    return (some if some.any() else every).nonzero().squeeze(1)
