"""Simulators behind one contract, and the one switch over suites.  Torch-free."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lastr1.config import EnvConfig
from lastr1.envs.base import Env, Recording, Start
from lastr1.envs.dualarm import SUITE as DUALARM
from lastr1.envs.dualarm import DualArmEnv
from lastr1.envs.dualarm_expert import DualArmExpert
from lastr1.envs.expert import TabletopExpert, collect_episode
from lastr1.envs.libero import CAPS as LIBERO_SUITES
from lastr1.envs.libero import LiberoEnv
from lastr1.envs.libero_expert import LiberoExpert
from lastr1.envs.stepped import Planner
from lastr1.envs.tabletop import TabletopEnv
from lastr1.envs.tabletop_tasks import SUITES as TABLETOP_SUITES
from lastr1.types import UserError


def make_env(config: EnvConfig) -> Env:
    """The environment of a suite.  `UserError` names a suite or task that does not exist."""
    env: Env
    if config.suite in TABLETOP_SUITES:
        env = TabletopEnv(config.suite, size=config.image)
    elif config.suite in LIBERO_SUITES:
        env = LiberoEnv(
            config.suite,
            image=config.image,
            released_init_patch=config.released_init_patch,
            render=config.render,
        )
    elif config.suite == DUALARM:
        env = DualArmEnv(image=config.image, render=config.render)
    else:
        known = ", ".join([*TABLETOP_SUITES, *LIBERO_SUITES, DUALARM])
        raise UserError(f"no suite {config.suite!r}: choose one of {known}")
    for task in config.tasks or ():
        if not 0 <= task < len(env.tasks):
            raise UserError(f"{config.suite} has no task {task}: choose 0..{len(env.tasks) - 1}")
    return env


class Expert(Protocol):
    """A scripted expert with an environment of its own."""

    @property
    def env(self) -> Env:
        """Where it shows what to do."""

    def record(self, start: Start, seed: int) -> Recording | None:
        """One successful episode, or None when this start defeats the expert."""


def make_expert(config: EnvConfig, noise: float) -> Expert:
    """The scripted expert of a suite; `noise` disturbs the unrecorded beginning of an episode."""
    env = make_env(config)
    if isinstance(env, TabletopEnv):
        return _TabletopRecorder(env=env, noise=noise)
    assert isinstance(env, LiberoEnv | DualArmEnv)
    return _PlanRecorder(env=env, planner=planner_of(env), noise=noise)


def planner_of(env: LiberoEnv | DualArmEnv) -> Planner:
    """The expert that plans on an environment before anything is drawn."""
    return LiberoExpert(env) if isinstance(env, LiberoEnv) else DualArmExpert(env)


@dataclass(frozen=True, kw_only=True)
class _TabletopRecorder:
    env: TabletopEnv
    noise: float

    def record(self, start: Start, seed: int) -> Recording | None:
        rng = np.random.default_rng(seed)
        episode = collect_episode(self.env, TabletopExpert(), start, noise=self.noise, rng=rng)
        return episode if episode.success else None


@dataclass(frozen=True, kw_only=True)
class _PlanRecorder:
    env: Env
    planner: Planner
    noise: float

    def record(self, start: Start, seed: int) -> Recording | None:
        plan = self.planner.plan(start, noise=self.noise, seed=seed)
        return self.planner.record(plan) if plan.success else None
