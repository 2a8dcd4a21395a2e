"""Planted faults: as many as asked for, of every kind, and each is noticed by the pool."""

import multiprocessing
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from lastr1.config import ChaosConfig, Config, EnvConfig
from lastr1.envs import make_env
from lastr1.envs.base import Start
from lastr1.envs.chaos import Chaos, Struck, suffer
from lastr1.envs.check import observation_flaw, outcome_flaw
from lastr1.envs.pool import EnvLost, EnvPool
from lastr1.envs.tabletop import TabletopEnv
from lastr1.types import ActionChunk

MAKE = partial(make_env, EnvConfig(suite="tabletop", image=16))
START = Start(task=0, state=1)
HOLD = ActionChunk(actions=np.tile(np.array([0, 0, 0, 0.5], np.float32), (4, 1)))


def strikes(config, count):
    chaos = Chaos(config)
    found = [chaos.strike(START) for _ in range(count)]
    return chaos, [(s.fault, s.die) if isinstance(s, Struck) else None for s in found]


def test_faults_come_as_often_as_asked():
    """4000 calls; the deviation of a count is at most sqrt(4000 * 0.1 * 0.9) = 19, four of them 76."""
    config = ChaosConfig(kill=0.1, hang=0.05, corrupt=0.025, slow=0.0125)
    chaos, found = strikes(config, 4000)
    for fault, share in (("kill", 0.1), ("hang", 0.05), ("corrupt", 0.025), ("slow", 0.0125)):
        assert abs(chaos.planted[fault] - 4000 * share) < 76
        assert chaos.planted[fault] == sum(f is not None and f[0] == fault for f in found)
    assert found == strikes(config, 4000)[1]
    assert found != strikes(replace(config, seed=1), 4000)[1]


def test_no_chaos_unless_asked_for():
    assert strikes(ChaosConfig(), 100)[1] == [None] * 100
    assert strikes(ChaosConfig(slow=1.0), 100)[0].planted == {"slow": 100}


@pytest.mark.parametrize("wrong", [{"kill": -0.1}, {"kill": 0.6, "hang": 0.5}, {"delay": -1.0}])
def test_chances_that_cannot_be(wrong):
    with pytest.raises(ValueError, match="chaos: chances"):
        ChaosConfig(**wrong)


def test_what_ends_a_process_needs_one():
    env = EnvConfig(workers=0)
    assert Config(name="x", env=env, chaos=ChaosConfig(corrupt=0.5, slow=0.5))
    with pytest.raises(ValueError, match=r"set env\.workers to 1"):
        Config(name="x", env=env, chaos=ChaosConfig(hang=0.5))


def test_every_lie_is_found():
    """Five about what is seen, four about what happened; each differs from the truth in a way of its own."""
    env, flaws = TabletopEnv("tabletop", 16), set()
    for die in range(5):
        struck = Struck(request=START, fault="corrupt", die=die, delay=0)
        flaws.add(observation_flaw(suffer(struck, lambda: env.reset(START)), env.spec))
    assert len(flaws) == 5
    for die in range(9):
        env.reset(START)
        struck = Struck(request=HOLD, fault="corrupt", die=die, delay=0)
        flaws.add(outcome_flaw(suffer(struck, lambda: env.play(HOLD)), env.spec, 4))
    assert len(flaws) == 9
    assert "" not in flaws
    assert observation_flaw(env.reset(START), env.spec) == ""
    assert outcome_flaw(env.play(HOLD), env.spec, 4) == ""


@pytest.mark.parametrize("nothing", [None, 3, "lost"])
def test_what_is_no_answer_at_all(nothing):
    env = TabletopEnv("tabletop", 16)
    seen = env.reset(START)
    assert "in place of an observation" in observation_flaw(nothing, env.spec)
    assert "in place of an outcome" in outcome_flaw(nothing, env.spec, 4)
    assert "expected an array" in observation_flaw(replace(seen, images={"front": nothing}), env.spec)
    assert "expected an array" in observation_flaw(replace(seen, state=nothing), env.spec)


@pytest.mark.parametrize(
    ("fault", "workers", "why"),
    [("kill", 1, "crashed .exit code -9"), ("hang", 1, "silent for 1 s"), ("corrupt", 1, "lied: "),
     ("corrupt", 0, "lied: ")],
)  # fmt: skip
def test_a_fault_is_noticed_and_its_worker_replaced(fault, workers, why):
    chaos = ChaosConfig(**{fault: 1.0})
    with EnvPool(MAKE, slots=2, workers=workers, deadline=1.0, restarts=2, chaos=chaos) as pool:
        before = multiprocessing.active_children()
        for answer in pool.reset({0: START, 1: START}).values():
            assert isinstance(answer, EnvLost)
            assert why in answer.reason.replace("(", ".")
        assert pool.planted == {fault: 2}
        assert len(multiprocessing.active_children()) == workers
        assert not set(before) & set(multiprocessing.active_children())


def watch(workers, chaos):
    """What is seen in three worlds over three chunks."""
    rng = np.random.default_rng(0)
    with EnvPool(MAKE, slots=3, workers=workers, chaos=chaos) as pool:
        found = list(pool.reset({s: Start(task=s, seed=s) for s in range(3)}).values())
        for _ in range(3):
            actions = rng.uniform(-1, 1, (3, 4, len(pool.spec.action))).astype(np.float32)
            outcomes = pool.play({s: ActionChunk(actions=actions[s]) for s in range(3)})
            found += [outcome.observation for outcome in outcomes.values()]
        assert pool.planted["slow"] == (12 if chaos.slow else 0)
    return [(seen.images["front"].tobytes(), seen.state.tobytes()) for seen in found]


def test_the_embedded_world_plays_the_same_in_any_process():
    """Also when every call is slow, which is not lost."""
    here = watch(0, ChaosConfig())
    assert len(set(here)) == len(here)  # everything moves, nothing is shared
    assert watch(2, ChaosConfig(slow=1.0, delay=0.01)) == here
