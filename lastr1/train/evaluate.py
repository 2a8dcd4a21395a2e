"""Job: success per task with 95% intervals."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lastr1.config import EnvConfig, EvaluateConfig
from lastr1.envs.base import Start
from lastr1.rollout.batch import Episode
from lastr1.rollout.collect import Player, scene_seed


def wilson(successes: int, episodes: int, z: float = 1.959964) -> tuple[float, float]:
    """95% Wilson score interval of a success rate, as shares (Wilson 1927)."""
    if episodes == 0:
        return 0.0, 1.0
    rate, spread = successes / episodes, z * z / episodes
    centre = (rate + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(rate * (1 - rate) / episodes + spread / (4 * episodes))
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Successes among episodes."""

    successes: int
    episodes: int
    wilson95: tuple[float, float]

    @staticmethod
    def of(results: Sequence[bool]) -> "Tally":
        """Count them."""
        return Tally(
            successes=sum(results), episodes=len(results), wilson95=wilson(sum(results), len(results))
        )


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was measured."""

    total: Tally
    tasks: dict[str, Tally]
    """instruction -> tally"""
    mean_latents: float
    """latents per decision"""
    latents: dict[int, int]
    """thought length in latents -> decisions"""
    control_steps: float
    """mean episode length, success or not"""
    rows: tuple[dict[str, int | bool | float], ...]
    """one per episode, in the order of the starts"""


def starts_of(env: EnvConfig, config: EvaluateConfig, tasks: int, stored: int, seed: int) -> list[Start]:
    """Every stored state of every task once, or `episodes` of them (fresh scenes if asked), tasks in turn."""
    chosen = env.tasks if env.tasks is not None else tuple(range(tasks))
    if config.states == "fresh" or stored == 0:
        count = config.episodes if config.episodes is not None else 50 * len(chosen)
        return [Start(task=chosen[i % len(chosen)], seed=scene_seed(seed, 1, i)) for i in range(count)]
    starts = [Start(task=task, state=state) for state in range(stored) for task in chosen]
    return starts[: config.episodes]


def evaluate(
    player: Player, starts: Sequence[Start], progress: Callable[[Episode], None] = lambda _: None
) -> Evaluation:
    """Play every start greedily and count."""
    return summarize(player.play(starts, noise=None, progress=progress), player)


def summarize(episodes: Sequence[Episode], player: Player) -> Evaluation:
    """Tallies of finished episodes."""
    group = player.bundle.policy.config.latents_per_group
    lengths = [group * int(step.decided.thought.groups) for e in episodes for step in e.steps]
    names = player.pool.tasks
    tasks = sorted({e.start.task for e in episodes})
    return Evaluation(
        total=Tally.of([e.success for e in episodes]),
        tasks={
            names[task]: Tally.of([e.success for e in episodes if e.start.task == task]) for task in tasks
        },
        mean_latents=float(np.mean(lengths)),
        latents=dict(sorted(Counter(lengths).items())),
        control_steps=float(np.mean([e.control_steps for e in episodes])),
        rows=tuple(_row(e, group) for e in episodes),
    )


def _row(episode: Episode, group: int) -> dict[str, int | bool | float]:
    start = episode.start
    return {
        "task": start.task,
        "state": -1 if start.state is None else start.state,
        "seed": start.seed,
        "success": episode.success,
        "control_steps": episode.control_steps,
        "latents": group * episode.groups,
        "seconds": round(episode.seconds, 3),
    }


def table(result: Evaluation) -> str:
    """The result as lines for a terminal."""
    width = max(len(name) for name in [*result.tasks, "all tasks"])
    lines = [f"{name:<{width}}  {_line(tally)}" for name, tally in result.tasks.items()]
    lines.append(f"{'all tasks':<{width}}  {_line(result.total)}")
    lines.append(
        f"mean thought {result.mean_latents:.2f} latents, "
        f"mean episode {result.control_steps:.0f} control steps"
    )
    return "\n".join(lines)


def _line(tally: Tally) -> str:
    low, high = (100 * x for x in tally.wilson95)
    rate = 100 * tally.successes / max(1, tally.episodes)
    return f"{tally.successes:>4}/{tally.episodes:<4} {rate:5.1f}%  95% [{low:.1f}, {high:.1f}]"
