"""A LIBERO episode over the wire, as PyPI's `openpi-client` plays it under LIBERO's key names."""

import importlib.util
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lastr1.envs.base import Start
from lastr1.presets import RECIPES
from lastr1.serve.engine import PolicyThinker
from lastr1.serve.job import greeting_of

ROOT = Path(__file__).resolve().parents[2]
OPENPI = Path(os.environ.get("LASTR1_OPENPI", ROOT / ".venv-openpi"))
pytestmark = [
    pytest.mark.sim,
    pytest.mark.slow,
    # the client is of 2024; our environment's websockets would have it connect in another way
    pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager:DeprecationWarning"),
    pytest.mark.skipif(importlib.util.find_spec("libero") is None, reason="LIBERO is not installed"),
    pytest.mark.skipif(not OPENPI.is_dir(), reason="no environment with openpi-client: make openpi"),
]

START = Start(task=7, state=0)


@pytest.fixture(scope="module")
def wire():
    from benchmarks import wire

    return wire


@pytest.fixture(scope="module")
def env():
    """The milk, seen small; over after 20 control steps: two chunks and a half."""
    from lastr1.envs import make_env

    made = make_env(replace(RECIPES["libero_object_small"].env, image=32))
    made.cap = 20
    yield made
    made.close()


@pytest.fixture
def cross(wire, env, served):
    """`cross(thinker, greeting)`: the episode as openpi's client plays it."""
    client = wire.openpi_client(OPENPI)

    def play(thinker, greeting):
        with served(thinker=thinker, greeting=greeting) as (url, _, _):
            policy = client("ws://127.0.0.1", int(url.rpartition(":")[2]))
            try:
                return wire.cross(policy.infer, env, START)
            finally:
                policy._ws.close()

    return play


def test_a_served_episode_is_the_evaluated_one(wire, env, cross, monkeypatch):
    """The same success after as many control steps, by the same actions."""
    config, played, play = RECIPES["libero_object_small"], [], env.play
    monkeypatch.setattr(env, "play", lambda chunk: played.append(chunk.actions) or play(chunk))
    small = replace(config, policy=replace(config.policy, image=32))
    bundle = wire.untrained(small, env)
    crossed = cross(PolicyThinker(bundle), greeting_of(bundle, 60_000.0))
    assert (crossed.success, crossed.steps) == (False, 20)
    assert len(crossed.trips_ms) == 3
    assert crossed.outside == 0
    assert wire.evaluated(bundle, lambda: env, START) == (crossed.success, crossed.steps)
    np.testing.assert_allclose(played[:3], played[3:], rtol=0, atol=1e-6)


def test_an_experts_plan_succeeds_over_the_wire(wire, env, cross):
    from lastr1.envs.libero_expert import LiberoExpert

    env.cap = 320
    plan = LiberoExpert(env).plan(START)
    assert plan.success
    crossed = cross(*wire.replay_server(env.spec, plan.actions))
    assert (crossed.success, crossed.steps) == (True, len(plan.actions))
    assert crossed.outside == 0
