"""Demonstrations of others, played again: what they did, seen by our own cameras, and only if it succeeds.

Axes: H control steps of a demonstration, A action size.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np

from lastr1.config import EnvConfig
from lastr1.demos.dataset import Demonstration
from lastr1.demos.source import Source, matching_tasks, open_source
from lastr1.envs import make_env
from lastr1.envs.base import Env
from lastr1.rollout.scripted import executor
from lastr1.types import ActionChunk, Start, UserError


def regenerated(
    env: EnvConfig,
    source: Path,
    *,
    count: int,
    seed: int,
    progress: Callable[[str], None] = lambda _: None,
    remark: Callable[[str], None] = lambda _: None,
) -> Iterator[Demonstration]:
    """Up to `count` successful replays of every task, drawn by seed, at the recipe's size (ALGORITHM.md 6.1).

    Where fewer succeed, `remark` hears it.  `UserError`: another suite's recording, or a task without any
    success.
    """
    recording = open_source(source)
    facts = make_env(env)
    matching = matching_tasks(recording, facts.tasks, env.suite, env.tasks)
    names = facts.tasks
    facts.close()
    queues = _candidates(recording, matching, env.tasks, seed)
    missing = dict.fromkeys(queues, count)
    with executor(env.workers) as pool:
        while round_ := [(task, n) for task, queue in queues.items() for n in queue[: missing[task]]]:
            for task, queue in queues.items():
                queues[task] = queue[missing[task] :]
            play = partial(_replay_number, env, source)
            numbers = [n for _, n in round_]
            tasks = [task for task, _ in round_]
            found = pool.map(play, numbers, tasks) if pool is not None else map(play, numbers, tasks)
            for task, demo in zip(tasks, found, strict=True):
                if demo is not None:
                    missing[task] -= 1
                    progress(names[task])
                    yield demo
    for task, short in missing.items():
        if short == count:
            raise UserError(
                f"{source}: no demonstration of {names[task]!r} succeeds when it is played again: "
                f"look at one with lastr1 doctor --demo, or choose other --env.tasks"
            )
        if short:
            remark(f"{count - short} of {count} demonstrations of {names[task]!r} succeed when played again")


def _candidates(
    recording: Source, matching: dict[int, int], tasks: tuple[int, ...] | None, seed: int
) -> dict[int, list[int]]:
    """Task of the environment -> its episodes in the order in which they are tried."""
    queues: dict[int, list[int]] = defaultdict(list)
    for number, episode in enumerate(recording.episodes):
        if episode.task in matching:
            queues[matching[episode.task]].append(number)
    absent = sorted(set(tasks or ()) - set(queues))
    if absent:
        raise UserError(
            f"{recording.root} has no demonstration of task {absent[0]}: choose other --env.tasks"
        )
    for task, numbers in queues.items():
        random.Random(f"{seed} {task}").shuffle(numbers)
    return dict(sorted(queues.items()))


@cache
def _env(config: EnvConfig) -> Env:
    return make_env(config)


@cache
def _source(path: Path) -> Source:
    return open_source(path)


def _replay_number(config: EnvConfig, path: Path, number: int, task: int) -> Demonstration | None:
    (demo,) = _source(path).demonstrations([number])
    if demo.start is None:
        raise UserError(f"{path}: nobody recorded where episode {number} began: it cannot be played again")
    return replay(_env(config), demo, replace(demo.start, task=task))


def replay(env: Env, demo: Demonstration, start: Start) -> Demonstration | None:
    """Play a demonstration open loop and record what the environment shows; None when it does not succeed.

    It ends where the task is solved, as every episode of ours does.
    """
    try:
        first = env.reset(start)
    except ValueError as error:
        raise UserError(f"the recorded start does not fit {env.tasks[start.task]!r}: {error}") from error
    seen, solved = [first], False
    for action in demo.actions:
        outcome = env.play(ActionChunk(actions=action[None]))
        seen.append(outcome.observation)
        solved = outcome.terminated
        if solved or outcome.truncated:
            break
    if not solved:
        return None
    return Demonstration(
        task=start.task,
        instruction=first.instruction,
        frames={c.name: np.stack([o.images[c.name] for o in seen]) for c in env.spec.cameras},
        states=np.stack([o.state for o in seen]),
        actions=demo.actions[: len(seen) - 1],
        start=start,
    )
