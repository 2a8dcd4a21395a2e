"""A LIBERO episode over the wire: python -m benchmarks.wire --openpi .venv-openpi [--task 7].

PyPI's openpi-client, unchanged, plays two episodes under LIBERO's key names: one decided by an untrained
policy behind `lastr1 serve`, and held against the same episode as `lastr1 evaluate` plays it; and one whose
server reads a scripted expert's actions chunk by chunk, to success.
Axes: C control steps per chunk, H of an episode, A action size.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.franka import started
from benchmarks.serve import server, told
from lastr1.config import Config, ServeConfig
from lastr1.envs import make_env
from lastr1.envs.base import Env, Start
from lastr1.envs.libero import LiberoEnv
from lastr1.envs.libero_expert import LiberoExpert
from lastr1.envs.pool import EnvPool
from lastr1.model import weights
from lastr1.model.weights import Bundle
from lastr1.presets import RECIPES
from lastr1.rollout.collect import Player
from lastr1.serve.batcher import Batch, Batcher, Cost, Costs
from lastr1.serve.server import PolicyServer
from lastr1.serve.wire import Greeting
from lastr1.spec import RobotSpec
from lastr1.train.run import scratch_bundle
from lastr1.types import ActionChunk, Floats, Observation

CHUNK = 8
GRIPPER = 6
Infer = Callable[[dict[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Crossed:
    """An episode whose every decision crossed the wire."""

    success: bool
    steps: int
    trips_ms: tuple[float, ...]
    outside: int
    """numbers among the actions that the robot's limits rule out"""


def openpi_client(environment: Path) -> Callable[..., Any]:
    """PyPI's client class.  It comes after our own packages on the path: LIBERO keeps its numpy."""
    (packages,) = environment.glob("lib/python*/site-packages")
    sys.path.append(str(packages))
    from openpi_client.websocket_client_policy import WebsocketClientPolicy

    found: Callable[..., Any] = WebsocketClientPolicy
    return found


def request(seen: Observation) -> dict[str, Any]:
    """As openpi's LIBERO program asks; it has a second camera, which the policy does not look at."""
    (image,) = seen.images.values()
    pictures = {"observation/image": image, "observation/wrist_image": np.zeros_like(image)}
    return {**pictures, "observation/state": seen.state, "prompt": seen.instruction}


def cross(infer: Infer, env: Env, start: Start) -> Crossed:
    """Play an episode with what `infer` answers: LIBERO's commands, with a gripper of 1 closed, -1 open."""
    low, high = np.array([(dim.low, dim.high) for dim in env.spec.action]).T
    seen, over, steps, outside, trips = env.reset(start), False, 0, 0, []
    while not over:
        began = time.perf_counter()
        actions = np.array(infer(request(seen))["actions"])
        trips.append(1000 * (time.perf_counter() - began))
        actions[:, GRIPPER] = (1 - actions[:, GRIPPER]) / 2
        outside += int(((actions < low) | (actions > high)).sum())
        outcome = env.play(ActionChunk(actions=actions))
        steps, seen = steps + outcome.steps, outcome.observation
        over = outcome.terminated or outcome.truncated
    return Crossed(success=outcome.terminated, steps=steps, trips_ms=tuple(trips), outside=outside)


class Replay:
    """A `Thinker` for one client that reads a plan [H, A] aloud, chunk by chunk."""

    groups = 1

    def __init__(self, actions: Floats) -> None:
        self._actions, self._told = actions, 0

    def decide(self, observations: Sequence[Observation], cap: int) -> Batch:
        rows = np.arange(self._told, self._told + CHUNK).clip(max=len(self._actions) - 1)
        self._told += CHUNK
        chunk = ActionChunk(actions=self._actions[rows])
        return Batch(chunks=(chunk,) * len(observations), groups=(cap,) * len(observations), ran=cap)


def replay_server(spec: RobotSpec, actions: Floats) -> tuple[Replay, Greeting]:
    """What a server needs to read a plan aloud."""
    greeting = Greeting(robot=spec, chunk=CHUNK, groups=1, latents_per_group=1, deadline_ms=60_000.0)
    return Replay(actions), greeting


def evaluated(bundle: Bundle, make: Callable[[], Env], start: Start) -> tuple[bool, int]:
    """Success and control steps of an episode as `lastr1 evaluate` plays it."""
    with EnvPool(make, slots=1, workers=0) as pool:
        (episode,) = Player(bundle, pool, 1).play([start], noise=None)
    return episode.success, episode.control_steps


def untrained(config: Config, env: Env) -> Bundle:
    torch.manual_seed(0)
    return scratch_bundle(config, env.spec, env.tasks)


async def _read_aloud(spec: RobotSpec, actions: Floats) -> None:
    thinker, greeting = replay_server(spec, actions)
    batcher = Batcher(thinker, Costs({1: Cost(alone=1e-3, further=0.0)}), 1)
    serving = PolicyServer(batcher, greeting, ServeConfig(port=0))
    await serving.run(asyncio.Event(), lambda port: print(port, flush=True))


def report(name: str, crossed: Crossed) -> None:
    print(
        f"{name}: success {crossed.success}, {crossed.steps} control steps, {crossed.outside} outside limits"
    )
    told(name, list(crossed.trips_ms))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--openpi", type=Path, default=Path(".venv-openpi"))
    parser.add_argument("--suite", default="libero_object")
    parser.add_argument("--task", type=int, default=7)
    parser.add_argument("--plan", type=Path, help="serve this plan and do nothing else")
    asked = parser.parse_args()
    config = RECIPES[f"{asked.suite}_small"]
    env = make_env(config.env)
    assert isinstance(env, LiberoEnv)
    if asked.plan:
        asyncio.run(_read_aloud(env.spec, np.load(asked.plan)))
    client, start = openpi_client(asked.openpi), Start(task=asked.task, state=0)
    env.reset(start)  # builds the scene: a while in which a client could not answer the server's pings
    with tempfile.TemporaryDirectory() as scratch:
        bundle = untrained(config, env)
        weights.save(bundle, Path(scratch) / "policy")
        with server(config.name, Path(scratch) / "policy", "--serve.max-batch", "1") as (_, url):
            crossed = cross(client("ws://127.0.0.1", int(url.rpartition(":")[2])).infer, env, start)
        report("untrained policy, openpi-client", crossed)
        again = evaluated(bundle, lambda: env, start)
        print(f"as lastr1 evaluate plays it: {again}; the same: {again == (crossed.success, crossed.steps)}")
        plan = LiberoExpert(env).plan(start)
        np.save(Path(scratch) / "plan.npy", plan.actions)
        words = ("--suite", asked.suite, "--plan", str(Path(scratch) / "plan.npy"))
        with started(sys.executable, "-m", "benchmarks.wire", *words) as port:
            crossed = cross(client("ws://127.0.0.1", int(port)).infer, env, start)
        report("the expert's plan, openpi-client", crossed)
        print(f"the plan has {len(plan.actions)} control steps, success {plan.success}")
    env.close()


if __name__ == "__main__":
    main()
