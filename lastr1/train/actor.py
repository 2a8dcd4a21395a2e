"""The actor: plays one robot without pause, asks a person before every control step, streams transitions.

It runs in a process of its own.  What it hands over are files (`buffers.py`), what it is handed are files as
well (`publish`), so either side may die without the other losing anything.

Axes: C control steps per chunk, A action size, S state size.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lastr1.config import Config, InteractiveConfig
from lastr1.envs import make_env
from lastr1.envs.base import Env, Start
from lastr1.envs.worker import die_with_parent
from lastr1.model.hub import sync
from lastr1.model.policy import LatentPolicy
from lastr1.model.weights import Bundle
from lastr1.rollout.collect import draw_noise, scene_seed
from lastr1.rollout.devices import make_human
from lastr1.rollout.human import Intervention, Verdict
from lastr1.train import run
from lastr1.train.buffers import Place, Transition, discard_episode, next_episode, write_transition
from lastr1.train.device import device_of
from lastr1.train.reinforce import trained_tasks
from lastr1.types import ActionChunk, Floats, Observation, Outcome, UserError

WEIGHTS = "published.safetensors"
"""the trained weights as the learner last published them"""
SCENES, DICE = 0, 5
"""streams of seeds: fresh scenes for training, draws while acting"""


def trained(policy: LatentPolicy) -> dict[str, Tensor]:
    """What changes while a run goes on: with an adapter its matrices alone, by parameter name."""
    return {name: p.data for name, p in policy.named_parameters() if p.requires_grad}


def publish(policy: LatentPolicy, root: Path, version: int) -> None:
    """Write the trained weights for the actor, whole or not at all; `version` counts updates."""
    temporary = root / f".{WEIGHTS}"
    found = {name: tensor.cpu().contiguous() for name, tensor in trained(policy).items()}
    save_file(found, temporary, metadata={"version": str(version)})
    sync(temporary)
    os.replace(temporary, root / WEIGHTS)


class Subscriber:
    """Loads what was published since the last look."""

    def __init__(self, policy: LatentPolicy, root: Path) -> None:
        self._policy, self._path, self._seen = policy, root / WEIGHTS, 0
        self.version = 0

    @torch.no_grad()
    def look(self) -> None:
        """Between decisions; cheap when nothing is new."""
        stamp = self._path.stat().st_mtime_ns
        if stamp == self._seen:
            return
        wanted = trained(self._policy)
        with safe_open(self._path, framework="pt") as file:
            for name, tensor in wanted.items():
                tensor.copy_(file.get_tensor(name))
            self.version = int(file.metadata()["version"])
        self._seen = stamp


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What both processes share beside files."""

    updates: "Synchronized[int]"
    """of the learner so far"""
    stop: Event
    """the learner is done or gone"""


@dataclass(kw_only=True)
class _Chunk:
    """What is being played, wholly by the policy or wholly by a person."""

    before: Observation
    held: bool
    takeover: bool
    actions: list[Floats] = field(default_factory=list)


class Actor:
    """One robot, one policy, one person."""

    def __init__(
        self, bundle: Bundle, env: Env, human: Intervention, config: Config, root: Path, shared: Shared
    ) -> None:
        self.bundle, self.env, self.human, self.root, self.shared = bundle, env, human, root, shared
        self.config, self.job = config, config.interactive
        self.weights = Subscriber(bundle.policy, root)
        self.hold = np.array(env.spec.hold, dtype=np.float32)
        self.tick: Callable[[], None] = Clock(env.spec.rate).wait if self.job.real_time else lambda: None
        self._decisions = 0
        self._place = Place(episode=0, index=0)

    def play(self, start: Start, episode: int) -> int:
        """One episode, or what of it there is time for; how many transitions it left."""
        self._place, self._decisions, task = Place(episode=episode, index=0), 0, start.task
        observation, given, held = self.env.reset(start), None, False
        self.human.begin()
        while not self.shared.stop.is_set():
            if given is None:
                proposed = self._decide(observation)
                given = self.human.act(observation, proposed[0])
            else:
                proposed = np.tile(self.hold, (self.bundle.policy.config.chunk, 1))
            chunk = _Chunk(
                before=observation, held=given is not None, takeover=given is not None and not held
            )
            outcome, verdict, given = self._play_chunk(chunk, proposed, given)
            held, observation = chunk.held, outcome.observation
            if verdict == "discard":
                discard_episode(self.root, episode)
                return 0
            self._write(chunk, outcome, verdict, task)
            if verdict is not None or outcome.truncated:
                break
        return self._place.index

    def _play_chunk(
        self, chunk: _Chunk, proposed: Floats, given: Floats | None
    ) -> tuple[Outcome, Verdict | None, Floats | None]:
        """Until it is whole, the episode is over, or the controls change hands; a person's next action."""
        for step in range(len(proposed)):
            action = proposed[step] if given is None else np.asarray(given, dtype=np.float32)
            self.tick()
            outcome = self.env.play(ActionChunk(actions=action[None]))
            chunk.actions.append(action)
            verdict = self.human.judge(outcome)
            if verdict is not None or outcome.truncated:
                return outcome, verdict, None
            if step + 1 < len(proposed) or chunk.held:
                coming = self.hold if chunk.held else proposed[step + 1]
                given = self.human.act(outcome.observation, coming)
                if (given is not None) != chunk.held:
                    break
        return outcome, None, given

    def _decide(self, observation: Observation) -> Floats:
        """A sampled chunk [C, A] under the newest weights."""
        self.weights.look()
        bundle, policy = self.bundle, self.bundle.policy
        seed = scene_seed(self.config.seed, DICE, 10_000 * self._place.episode + self._decisions)
        self._decisions += 1
        prompt = bundle.prompts.build([observation], policy.device)
        decision = policy.decide(prompt, draw_noise(policy, [seed]))
        bins = decision.tokens.cpu().reshape(policy.config.chunk, -1).numpy()
        return bundle.codec.decode(bins)

    def _write(self, chunk: _Chunk, outcome: Outcome, verdict: Verdict | None, task: int) -> None:
        actions = np.zeros((self.bundle.policy.config.chunk, len(self.hold)), dtype=np.float32)
        actions[: len(chunk.actions)] = chunk.actions
        row = make_transition(self.bundle, self.job, chunk.before, outcome.observation, actions)
        row = replace(
            row,
            task=task,
            steps=len(chunk.actions),
            reward=reward(self.job, len(chunk.actions), success=verdict == "success"),
            terminated=verdict is not None,
            truncated=outcome.truncated and verdict is None,
            success=verdict == "success",
            is_intervention=chunk.held,
            teleop_action=actions if chunk.held else np.zeros_like(actions),
            takeover=chunk.takeover,
            version=self.weights.version,
        )
        write_transition(self.root, self._place, row)
        self._place = replace(self._place, index=self._place.index + 1)


def reward(job: InteractiveConfig, steps: int, *, success: bool) -> float:
    """Of a chunk: a cost per control step, and a prize for a confirmed success."""
    return job.step_reward * steps + (job.success_reward if success else 0.0)


def make_transition(
    bundle: Bundle, job: InteractiveConfig, before: Observation, after: Observation, actions: Floats
) -> Transition:
    """A whole chunk of the policy's own [C, A], in the middle of an episode."""
    return Transition(
        instruction=before.instruction,
        task=0,
        pixels=bundle.prompts.views(before),
        state=before.state,
        actions=actions,
        steps=len(actions),
        reward=reward(job, len(actions), success=False),
        terminated=False,
        truncated=False,
        success=False,
        next_pixels=bundle.prompts.views(after),
        next_state=after.state,
        is_intervention=False,
        teleop_action=np.zeros_like(actions),
        takeover=False,
        version=0,
    )


class Clock:
    """Ticks at a fixed rate; a tick that is late is not made up for."""

    def __init__(self, rate: float) -> None:
        self._period, self._next = 1.0 / rate, 0.0

    def wait(self) -> None:
        """Until the next tick."""
        now = time.monotonic()
        if now < self._next:
            time.sleep(self._next - now)
        self._next = max(now, self._next) + self._period


def starts(config: Config, tasks: int, first: int) -> Iterator[tuple[int, Start]]:
    """Fresh scenes without end, tasks in turn, numbered from `first`."""
    chosen = trained_tasks(config, tasks)
    episode = first
    while True:
        yield (
            episode,
            Start(task=chosen[episode % len(chosen)], seed=scene_seed(config.seed, SCENES, episode)),
        )
        episode += 1


def act(config: Config, start: Path, root: Path, count: int, shared: Shared, complaints: Connection) -> None:
    """A process's life: play until the run's transitions are there; `count` are already."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the learner handles it
    die_with_parent()
    torch.set_num_threads(max(1, config.threads // 2))
    try:
        env = make_env(config.env)
        bundle = run.load_policy(start, env.spec, device_of(config), config.policy, config.adapter)
        freeze(bundle.policy, config)
        with contextlib.closing(make_human(config.interactive, env)) as human:
            actor = Actor(bundle, env, human, config, root, shared)
            wait = partial(_keep_step, config.interactive, shared)
            for episode, first in starts(config, len(env.tasks), next_episode(root)):
                wait(count)
                if shared.stop.is_set() or count >= config.interactive.transitions:
                    break
                count += actor.play(first, episode)
        env.close()
    except UserError as error:
        complaints.send(str(error))


def freeze(policy: LatentPolicy, config: Config) -> None:
    """What an interactive run does not train: the value head (its critics are others), and perhaps vision."""
    policy.value_head.requires_grad_(False)
    if config.optimizer.freeze_vision:
        policy.backbone.freeze_vision()


def due(job: InteractiveConfig, count: int) -> int:
    """Updates that `count` transitions are worth, where their ratio is fixed."""
    return int(job.updates_per_transition * max(0, count - job.start_after))


def _keep_step(job: InteractiveConfig, shared: Shared, count: int) -> None:
    """A simulated robot waits for its learner where the ratio is fixed; a real one never does."""
    while shared.updates.value < due(job, count) and not shared.stop.is_set():
        shared.stop.wait(0.05)
