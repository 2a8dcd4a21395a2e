"""Demonstrations played by the scripted expert."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache, partial

from lastr1.config import CollectConfig, EnvConfig
from lastr1.demos.dataset import Demonstration
from lastr1.envs import Expert, make_env, make_expert
from lastr1.envs.base import Recording, Start
from lastr1.envs.worker import die_with_parent
from lastr1.rollout.collect import scene_seed
from lastr1.types import UserError

ATTEMPTS = 20
"""scenes tried per demonstration before the expert is declared unable"""
_DEMONSTRATIONS = 2


def demonstrations(
    env: EnvConfig,
    config: CollectConfig,
    seed: int,
    progress: Callable[[str], None] = lambda _: None,
    left_out: Callable[[str], None] | None = None,
) -> Iterator[Demonstration]:
    """`episodes` successes of every task, task by task, always in the same order.

    Fresh scenes from a stream of their own, so that no training or evaluation scene is ever demonstrated.
    A task the expert cannot do is a `UserError`, unless `left_out` is there to hear of it.
    """
    facts = make_env(env)
    names = facts.tasks
    facts.close()
    tasks = env.tasks if env.tasks is not None else tuple(range(len(names)))
    record = partial(_record, env, config.noise, seed)
    wanted = [(task, episode) for task in tasks for episode in range(config.episodes)]
    with executor(env.workers) as pool:
        # A LIBERO scene takes seconds to build: who builds one records all of its task.
        chunk = max(4, config.episodes)
        found = pool.map(record, wanted, chunksize=chunk) if pool is not None else map(record, wanted)
        for (task, _), recording in zip(wanted, found, strict=True):
            if recording is None:
                failure = f"the expert failed {ATTEMPTS} scenes of task {task} ({names[task]!r})"
                if left_out is None:
                    raise UserError(f"{failure}: choose other --env.tasks")
                left_out(failure)
                continue
            progress(recording.instruction)
            yield Demonstration(
                task=task,
                instruction=recording.instruction,
                frames=recording.frames,
                states=recording.states,
                actions=recording.actions,
                # after a disturbed beginning, the start is not where the recording begins
                start=recording.start if not config.noise else None,
            )


def _record(env: EnvConfig, noise: float, seed: int, wanted: tuple[int, int]) -> Recording | None:
    task, episode = wanted
    expert = _expert(env, noise)
    for attempt in range(ATTEMPTS):
        scene = scene_seed(seed, _DEMONSTRATIONS, (episode * ATTEMPTS + attempt) * 1000 + task)
        recording = expert.record(Start(task=task, seed=scene), scene)
        if recording is not None:
            return recording
    return None


@cache
def _expert(env: EnvConfig, noise: float) -> Expert:
    return make_expert(env, noise)


@contextmanager
def executor(workers: int) -> Iterator[Executor | None]:
    """A pool of processes (-1: one per core), or nothing for `workers` 0."""
    if not workers:
        yield None
        return
    count = workers if workers > 0 else None
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=die_with_parent)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
