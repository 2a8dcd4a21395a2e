"""Demonstrations of the scripted expert: which scenes, in which order, and what happens when it fails."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lastr1 import envs
from lastr1.cli import main
from lastr1.config import CollectConfig, Config, EnvConfig, EvaluateConfig, ReinforceConfig
from lastr1.demos.lerobot import open_recording
from lastr1.envs import make_env, make_expert
from lastr1.envs.base import Recording, Start
from lastr1.rollout import scripted
from lastr1.rollout.collect import scene_seed
from lastr1.rollout.replay import replay
from lastr1.rollout.scripted import ATTEMPTS, demonstrations
from lastr1.train.evaluate import starts_of
from lastr1.train.reinforce import training_starts
from lastr1.types import UserError

ENV = EnvConfig(suite="tabletop", image=32, workers=0)
TASKS = 4


class FakeExpert:
    """Fails the first `failures` scenes of every demonstration; remembers what it was asked."""

    def __init__(self, failures=0):
        self.failures, self.asked = failures, []

    def record(self, start, seed):
        self.asked.append((start, seed))
        tries = sum(s.task == start.task for s, _ in self.asked) - 1
        if tries % (self.failures + 1) < self.failures:
            return None
        return Recording(
            start=start,
            instruction=f"do task {start.task}",
            frames={"front": np.zeros((3, 32, 32, 3), np.uint8)},
            states=np.zeros((3, 4), np.float32),
            actions=np.full((2, 4), start.seed % 97, np.float32),
            success=True,
        )


@pytest.fixture
def expert(monkeypatch):
    """`expert(failures)` takes the place of the suite's own."""

    def install(failures=0):
        fake = FakeExpert(failures)
        monkeypatch.setattr(scripted, "_expert", lambda env, noise: fake)
        return fake

    return install


def test_task_by_task_and_every_scene_new(expert):
    fake, heard = expert(), []
    found = list(demonstrations(ENV, CollectConfig(episodes=3), 0, heard.append))
    assert [d.task for d in found] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert heard == [f"do task {d.task}" for d in found]
    assert len({start.seed for start, _ in fake.asked}) == 12
    assert all(start.state is None for start, _ in fake.asked)


def test_chosen_tasks_only(expert):
    expert()
    env = EnvConfig(suite="tabletop", tasks=(2, 0), workers=0)
    assert [d.task for d in demonstrations(env, CollectConfig(episodes=2), 0)] == [2, 2, 0, 0]


def test_a_failed_scene_is_replaced_by_a_new_one(expert):
    fake = expert(failures=2)
    found = list(demonstrations(ENV, CollectConfig(episodes=2), 0))
    assert [d.task for d in found] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert len(fake.asked) == 3 * 8
    assert len({start.seed for start, _ in fake.asked}) == 3 * 8


def test_an_expert_that_always_fails_is_named(expert):
    fake = expert(failures=ATTEMPTS)
    with pytest.raises(
        UserError, match=r"the expert failed 20 scenes of task 0 .*: choose other --env\.tasks"
    ):
        list(demonstrations(ENV, CollectConfig(), 0))
    assert len(fake.asked) == ATTEMPTS


def test_the_number_of_demonstrations_does_not_change_the_first_ones(expert):
    """Scenes belong to (task, number), not to how many there are, or which tasks are asked for."""

    def scenes(episodes, tasks=None):
        fake = expert()
        list(
            demonstrations(
                EnvConfig(suite="tabletop", tasks=tasks, workers=0), CollectConfig(episodes=episodes), 0
            )
        )
        return [(start.task, start.seed) for start, _ in fake.asked]

    assert scenes(3)[::3] == scenes(1)
    assert set(scenes(2, tasks=(3,))) < set(scenes(2))


class _Pool:
    tasks, stored_states = ("a", "b", "c", "d"), 50


class _Player:
    pool = _Pool()


@pytest.mark.parametrize("seed", [0, 1])
def test_training_evaluation_and_demonstrations_never_share_a_scene(expert, seed):
    """Also the demonstrations' failed attempts.  Stored states are a fourth kind: they have no seed."""
    fake = expert(failures=4)
    list(demonstrations(ENV, CollectConfig(episodes=60), seed))
    shown = {start.seed for start, _ in fake.asked}
    config = Config(name="t", seed=seed, reinforce=ReinforceConfig(episodes=64))
    trained = {s.seed for i in range(60) for s in training_starts(config, _Player(), i)}
    fresh = EvaluateConfig(states="fresh", episodes=500)
    evaluated = {s.seed for s in starts_of(ENV, fresh, TASKS, 50, seed)}
    pictures = {scene_seed(seed, 2, 1_000_000 + i) for i in range(2000)}
    assert (len(shown), len(trained), len(evaluated)) == (60 * 4 * 5, 60 * 64, 500)
    assert not shown & trained
    assert not shown & evaluated
    assert not trained & evaluated
    assert not pictures & (trained | evaluated)


def test_the_real_expert_succeeds_reproducibly():
    scripted._expert.cache_clear()
    first, second = (list(demonstrations(ENV, CollectConfig(noise=0.1), seed)) for seed in (0, 0))
    other = list(demonstrations(ENV, CollectConfig(noise=0.1), 1))
    assert len(first) == TASKS
    for a, b, c in zip(first, second, other, strict=True):
        assert np.array_equal(a.actions, b.actions)
        assert np.array_equal(a.frames["front"], b.frames["front"])
        assert not np.array_equal(a.frames["front"][0], c.frames["front"][0])


@pytest.mark.slow
def test_workers_give_the_same_demonstrations():
    here = list(demonstrations(ENV, CollectConfig(), 0))
    apart = list(demonstrations(EnvConfig(suite="tabletop", image=32, workers=2), CollectConfig(), 0))
    for a, b in zip(here, apart, strict=True):
        assert a.task == b.task
        assert np.array_equal(a.actions, b.actions)
        assert np.array_equal(a.frames["front"], b.frames["front"])


class Unable:
    """The real expert, but every first scene of a task defeats it, and task 1 always."""

    def __init__(self):
        self.real, self.seen = make_expert(ENV, 0.0), set()

    def record(self, start, seed):
        first = start.task not in self.seen
        self.seen.add(start.task)
        return None if first or start.task == 1 else self.real.record(start, seed)


def test_collect_writes_successes_only(tmp_path, monkeypatch, capsys):
    """What is written solves its task when played again; a task without success is named and left out."""
    unable = Unable()
    monkeypatch.setattr(scripted, "_expert", lambda env, noise: unable)
    out = tmp_path / "set"
    knobs = ["--collect.episodes", "2", "--env.image", "32", "--env.workers", "0"]
    assert main(["collect", "tabletop", "--out", str(out), *knobs]) == 0
    heard = capsys.readouterr()
    assert heard.out == f"6 demonstrations in {out}\n"
    assert (
        "the expert failed 20 scenes of task 1 ('push the red block to the blue zone'): left out" in heard.err
    )
    env = make_env(ENV)
    for demo in open_recording(out).demonstrations():
        assert demo.task != 1
        assert replay(env, demo, demo.start) is not None


@pytest.mark.parametrize("success", [True, False])
def test_an_expert_that_plans_records_its_successes_only(success):
    class Planner:
        def plan(self, start, noise, seed):
            assert (noise, seed) == (0.25, 7)
            return SimpleNamespace(start=start, success=success)

        def record(self, plan):
            assert plan.success
            return plan.start

    start = Start(task=3)
    recorder = envs._PlanRecorder(env=None, planner=Planner(), noise=0.25)
    assert recorder.record(start, 7) == (start if success else None)


def test_the_start_is_known_unless_the_beginning_was_disturbed(expert):
    fake = expert()
    found = list(demonstrations(ENV, CollectConfig(), 0))
    assert [d.start for d in found] == [start for start, _ in fake.asked]
    assert all(d.start is None for d in demonstrations(ENV, CollectConfig(noise=0.1), 0))


PARENT = """
import os
import time
from lastr1.rollout.scripted import executor
if __name__ == "__main__":
    with executor(1) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        time.sleep(600)
"""


def test_nobody_records_for_a_parent_that_was_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, script], **quiet) as parent:
        worker = Path("/proc") / parent.stdout.readline().decode().strip()
        assert worker.exists()
        parent.kill()
    deadline = time.monotonic() + 20
    while worker.exists() and (worker / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
        assert time.monotonic() < deadline, "the worker outlived its parent"
        os.sched_yield()
