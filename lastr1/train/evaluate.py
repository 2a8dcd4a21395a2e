"""Job: success per task with 95% intervals."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lastr1.config import EnvConfig, EvaluateConfig
from lastr1.envs.base import Setup, Start
from lastr1.rollout.batch import Episode
from lastr1.rollout.collect import Player, scene_seed
from lastr1.types import UserError

Row = dict[str, int | bool | float]
"""an episode: start, success, length, decisions, mean length of its thoughts, times its simulator was lost"""
AGREEMENT = 0.95
"""of the two stop rules, below which `mode` is the headline [3]"""


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
    """instruction (and number, where tasks of the suite share it) -> tally"""
    mean_latents: float
    """latents per decision"""
    latents: dict[int, int]
    """thought length in latents -> decisions"""
    control_steps: float
    """mean episode length, success or not"""
    rows: tuple[Row, ...]
    """one per episode, in the order of the starts"""


@dataclass(frozen=True, kw_only=True)
class StopRules:
    """How long the same thoughts are by either stop rule (ALGORITHM.md 3)."""

    played: str
    """the rule that was followed: `first`, `max` or `mode`"""
    first: dict[int, int]
    """thought length in latents -> decisions, by the rule `first`"""
    mode: dict[int, int]
    """the same by `mode`"""
    compared: int
    """decisions of which both are known: those all of whose candidates were computed"""
    agreement: float
    """share of those in which both rules stop at the same candidate (0 if there are none)"""


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Which starts were played."""

    episodes: int
    distinct: int
    """different (task, stored state) pairs among them; 0 for fresh scenes"""
    stored: int
    """pairs that the suite has"""
    complete: bool
    """every pair of the suite exactly once"""


@dataclass(frozen=True, kw_only=True)
class Capped:
    """The same starts under a cap: a point of the curve of success against thinking."""

    cap: int
    """groups after which a thought ended at the latest"""
    total: Tally
    mean_latents: float
    """latents per decision"""
    control_steps: float
    """mean episode length, success or not"""


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """An evaluation, and what has to be known to repeat and to judge it."""

    evaluation: Evaluation
    rules: StopRules
    coverage: Coverage
    setup: Setup


def allowed_caps(config: EvaluateConfig, candidates: int) -> tuple[int | None, ...]:
    """Caps to play under; (None,) without any.  `UserError` for one above the policy's K `candidates`."""
    if config.caps and config.caps[-1] > candidates:
        raise UserError(
            f"evaluate.caps {config.caps[-1]}: this policy's thoughts have at most {candidates} groups"
        )
    return config.caps or (None,)


def capped(cap: int, result: Evaluation) -> Capped:
    """What the curve needs of an evaluation under `cap`."""
    return Capped(
        cap=cap,
        total=result.total,
        mean_latents=result.mean_latents,
        control_steps=result.control_steps,
    )


def starts_of(env: EnvConfig, config: EvaluateConfig, tasks: int, stored: int, seed: int) -> list[Start]:
    """Every stored state of every task once, or `episodes` of them (fresh scenes if asked), tasks in turn."""
    chosen = env.tasks if env.tasks is not None else tuple(range(tasks))
    if config.states == "fresh" or stored == 0:
        count = config.episodes if config.episodes is not None else 50 * len(chosen)
        return [Start(task=chosen[i % len(chosen)], seed=scene_seed(seed, 1, i)) for i in range(count)]
    starts = [Start(task=task, state=state) for state in range(stored) for task in chosen]
    return starts[: config.episodes]


def evaluate(
    player: Player,
    starts: Sequence[Start],
    progress: Callable[[Episode], None] = lambda _: None,
    cap: int | None = None,
) -> Assessment:
    """Play every start greedily and count; thoughts end after `cap` groups at the latest.

    `RuntimeError` unless each start was played once, in order.
    """
    episodes = player.play(starts, noise=None, most=cap, progress=progress)
    if [e.start for e in episodes] != list(starts):
        raise RuntimeError(f"{len(starts)} starts were given, and other ones played")
    pool, config = player.pool, player.bundle.policy.config
    return Assessment(
        evaluation=summarize(episodes, player),
        rules=stop_rules(episodes, config.eval_stop, config.latents_per_group),
        coverage=coverage(starts, len(pool.tasks), pool.stored_states),
        setup=pool.setup,
    )


def coverage(starts: Sequence[Start], tasks: int, stored: int) -> Coverage:
    """How much of the suite's `tasks` times `stored` states the starts are."""
    pairs = [(s.task, s.state) for s in starts if s.state is not None]
    distinct = len(set(pairs))
    complete = len(starts) == len(pairs) == distinct == tasks * stored
    return Coverage(episodes=len(starts), distinct=distinct, stored=tasks * stored, complete=complete)


def stop_rules(episodes: Sequence[Episode], played: str, group: int) -> StopRules:
    """Compare both rules on the scores that were recorded; nothing is played or computed again."""
    said = np.array([step.decided.rules.tolist() for e in episodes for step in e.steps]).reshape(-1, 2)
    both = said[(said > 0).all(axis=1)]
    first, mode = (dict(sorted(Counter((group * both[:, rule]).tolist()).items())) for rule in (0, 1))
    agreement = float((both[:, 0] == both[:, 1]).mean()) if len(both) else 0.0
    return StopRules(played=played, first=first, mode=mode, compared=len(both), agreement=agreement)


def summarize(episodes: Sequence[Episode], player: Player) -> Evaluation:
    """Tallies of finished episodes."""
    group = player.bundle.policy.config.latents_per_group
    lengths = [group * int(step.decided.thought.groups) for e in episodes for step in e.steps]
    names = distinct(player.pool.tasks)
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


def distinct(instructions: Sequence[str]) -> list[str]:
    """Names of tasks: instructions, with the task's number where several share one (libero_90: 74 of 90)."""
    count = Counter(instructions)
    return [name if count[name] == 1 else f"{name} (task {i})" for i, name in enumerate(instructions)]


def _row(episode: Episode, group: int) -> Row:
    start = episode.start
    return {
        "task": start.task,
        "state": -1 if start.state is None else start.state,
        "seed": start.seed,
        "success": episode.success,
        "control_steps": episode.control_steps,
        "decisions": len(episode.steps),
        "latents": group * episode.groups,
        "seconds": round(episode.seconds, 3),
        "lost": episode.lost,
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


def remarks(found: Assessment) -> str:
    """What stands below the table: both stop rules, coverage and setup."""
    setup, covered, rules = found.setup, found.coverage, found.rules
    lines = []
    if rules.compared:
        lines += [f"first {_histogram(rules.first)}", f"mode  {_histogram(rules.mode)}"]
        lines.append(f"both rules stop alike in {rules.agreement:.1%} of {rules.compared} decisions")
        if rules.agreement < AGREEMENT and rules.played != "mode":
            lines.append(
                f"below {AGREEMENT:.0%}: report this policy by `mode` (eval_stop in its lastr1.json)"
            )
    whole = "each once" if covered.complete else "not all"
    lines.append(f"{covered.distinct} of {covered.stored} stored initial states, {whole}")
    lost = sum(row["lost"] for row in found.evaluation.rows)
    if lost:
        lines.append(f"{lost} times an episode lost its simulator and was begun anew")
    lines.append(
        f"{setup.suite}: cap {setup.cap}, {setup.settle} settling steps, {setup.image} px, "
        f"drawn {setup.render} by {setup.renderer}" + "".join(f"; PATCHED: {p}" for p in setup.patches)
    )
    return "\n".join(lines)


def curve(points: Sequence[Capped]) -> str:
    """Lines for a terminal: success under each cap, and how long thoughts were."""
    return "\n".join(
        f"at most {p.cap} group{'s' if p.cap > 1 else ' '}  {_line(p.total)}  "
        f"mean thought {p.mean_latents:.2f} latents"
        for p in points
    )


def _histogram(counts: dict[int, int]) -> str:
    total = sum(counts.values())
    shares = ", ".join(f"{length}: {count / total:.0%}" for length, count in counts.items())
    mean = sum(length * count for length, count in counts.items()) / total
    return f"mean {mean:.2f} latents ({shares})"


def _line(tally: Tally) -> str:
    low, high = (100 * x for x in tally.wilson95)
    rate = 100 * tally.successes / max(1, tally.episodes)
    return f"{tally.successes:>4}/{tally.episodes:<4} {rate:5.1f}%  95% [{low:.1f}, {high:.1f}]"
