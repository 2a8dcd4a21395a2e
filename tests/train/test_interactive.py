"""The actor cuts chunks where the controls change hands; the job runs, resumes, and survives SIGKILL."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lastr1.cli import main
from lastr1.config import InteractiveConfig
from lastr1.envs import make_env
from lastr1.envs.base import Start
from lastr1.presets import RECIPES
from lastr1.rollout.human import Nobody
from lastr1.train import run
from lastr1.train.actor import Actor, Shared, due, freeze, publish, reward
from lastr1.train.buffers import Buffers, read_all, read_transition
from lastr1.train.guided import InteractiveLearner
from lastr1.train.interactive import Tally, may_update
from lastr1.train.metrics import read_metrics

JOB = [
    "--interactive.transitions", "14", "--interactive.start-after", "6",
    "--interactive.updates-per-transition", "0.5", "--interactive.batch", "2",
    "--interactive.critic-hidden", "16", "--interactive.publish-every", "2",
    "--interactive.checkpoint-every", "2", "--interactive.patience", "8", "--collect.episodes", "1",
    "--interactive.critic-first", "1",
]  # fmt: skip


@pytest.fixture(scope="module")
def policy(tmp_path_factory, toy):
    """A toy policy on disk."""
    out = tmp_path_factory.mktemp("policy")
    assert main(["warmup", "tabletop_interactive", *toy, "--out", str(out)]) == 0
    return out / "last"


@pytest.fixture
def config():
    recipe = RECIPES["tabletop_interactive"]
    return replace(recipe, threads=1, env=replace(recipe.env, image=32))


class Puppet(Nobody):
    """Drives in the control steps that it was given, and judges in one."""

    def __init__(self, drives, judges=None):
        self.drives, self.judges, self.asked, self.played = set(drives), judges, [], -1

    def act(self, observation, proposed):
        now = self.played + 1
        self.asked.append(now)
        return np.full(4, 0.25, dtype=np.float32) if now in self.drives else None

    def judge(self, outcome):
        self.played += 1
        return self.judges[1] if self.judges and self.played == self.judges[0] else None


@pytest.fixture
def play(policy, config, tmp_path):
    """`play(person)`: the transitions of one episode, in order."""

    def episode(person):
        env = make_env(config.env)
        bundle = run.load_policy(policy, env.spec, torch.device("cpu"))
        freeze(bundle.policy, config)
        publish(bundle.policy, tmp_path, 5)
        context = multiprocessing.get_context("spawn")
        shared = Shared(updates=context.Value("q", 0), stop=context.Event())
        person.stop = shared.stop
        actor = Actor(bundle, env, person, config, tmp_path, shared)
        count = actor.play(Start(task=1, seed=3), 0)
        rows = [row for _, row in read_all(Buffers(tmp_path).refresh())]
        assert len(rows) == count
        return rows

    return episode


def test_an_episode_without_interventions(play):
    rows = play(Puppet([]))
    assert sum(row.steps for row in rows) == 80
    assert [row.steps for row in rows] == [8] * 10
    assert [row.truncated for row in rows] == [False] * 9 + [True]
    assert not any(row.is_intervention or row.takeover or row.terminated or row.success for row in rows)
    assert all(row.version == 5 for row in rows)
    for row, after in pairwise(rows):
        np.testing.assert_array_equal(row.next_pixels, after.pixels)
    assert rows[0].reward == pytest.approx(-0.05 * 8)
    assert not any(row.teleop_action.any() for row in rows)


def test_chunks_end_where_the_controls_change_hands(play):
    # the policy's 0..2, the person's 3..13 (a whole chunk and 3 steps), the policy's again
    person = Puppet(range(3, 14), judges=(20, "success"))
    rows = play(person)
    assert [(row.steps, row.is_intervention, row.takeover) for row in rows] == [
        (3, False, False), (8, True, True), (3, True, False), (7, False, False),
    ]  # fmt: skip
    driven = rows[1]
    np.testing.assert_array_equal(driven.actions, np.full((8, 4), 0.25))
    np.testing.assert_array_equal(driven.teleop_action, driven.actions)
    # past its end a chunk is 0
    assert not rows[0].actions[3:].any()
    assert rows[0].actions[:3].any()
    # asked before every control step; once more after the whole chunk's hold, where it lets go inside one
    assert sorted(set(person.asked)) == list(range(21))
    last = rows[-1]
    assert last.terminated
    assert last.success
    assert last.reward == pytest.approx(10 - 0.05 * 7)


def test_a_person_who_drives_from_the_first_step(play):
    rows = play(Puppet(range(100)))
    assert all(row.is_intervention for row in rows)
    assert [row.takeover for row in rows] == [True] + [False] * 9


def test_a_failure_ends_without_a_prize(play):
    rows = play(Puppet([], judges=(4, "failure")))
    assert [(row.steps, row.terminated, row.success) for row in rows] == [(5, True, False)]
    assert rows[0].reward == pytest.approx(-0.25)


def test_a_discarded_episode_leaves_nothing(play):
    assert play(Puppet(range(3, 6), judges=(30, "discard"))) == []


class Leaver(Puppet):
    """Beside whom the run is stopped, in the second chunk."""

    def act(self, observation, proposed):
        if self.played == 10:
            self.stop.set()
        return super().act(observation, proposed)


def test_a_run_that_is_stopped_does_not_wait_for_the_end_of_an_episode(play):
    """The keyboard is a terminal that has to be given back."""
    assert [row.steps for row in play(Leaver([]))] == [8, 8]


def test_rewards_and_ratio():
    job = InteractiveConfig(updates_per_transition=0.5, start_after=10)
    assert reward(job, 8, success=False) == pytest.approx(-0.4)
    assert reward(job, 3, success=True) == pytest.approx(9.85)
    assert [due(job, n) for n in (0, 10, 11, 12, 20)] == [0, 0, 0, 1, 5]


def test_when_an_update_may_come():
    free, tied = (InteractiveConfig(start_after=10, updates_per_transition=ratio) for ratio in (0.0, 0.5))
    for job in (free, tied):
        assert not may_update(job, 9, 0, playing=True)
    assert may_update(free, 10, 99, playing=True)
    assert not may_update(free, 10, 0, playing=False)
    # 14 transitions are worth two updates, also when the robot has stopped
    assert [may_update(tied, 14, step, playing=False) for step in range(4)] == [True, True, False, False]


def test_tally(play):
    rows = play(Puppet(range(3, 14), judges=(20, "success")))
    tally = Tally()
    tally.note([(0, row) for row in rows[:2]])
    assert tally.figures() == {}
    tally.note([(0, row) for row in rows[2:]])
    tally.note([(1, rows[-1])])
    found = tally.figures()
    assert found["success"] == 1
    assert found["success_alone"] == 0.5
    assert found["interventions"] == 0.5
    assert found["intervened_share"] == pytest.approx((11 / 21) / 2)
    assert found["episodes"] == 2


def test_guidance_learns_from_the_critics_and_cloning_from_people_alone(play, policy, config, tmp_path):
    play(Puppet(range(3, 14)))
    env = make_env(config.env)
    bundle = run.load_policy(policy, env.spec, torch.device("cpu"))
    learner = InteractiveLearner(bundle, config)
    found = Buffers(tmp_path)
    found.refresh()
    batch = found.draw(3, np.random.default_rng(0))
    lesson = learner.study(batch, 0)
    # past the end of a chunk cut short nothing counts, for the critics as for cloning
    short = torch.from_numpy(batch.steps) < 8
    assert not lesson.chunk[short][:, -4:].any()
    assert not lesson.valid[short][:, -4:].any()
    assert lesson.discount[short].tolist() == pytest.approx(
        (0.98 ** (batch.steps[short.numpy()] / 8)).tolist()
    )
    before = [w.clone() for w in learner.weights]
    critics = [w.clone() for w in learner.critics.parameters()]
    figures = learner.improve_critics(lesson)
    assert figures["critic_loss"] > 0
    assert all(torch.equal(a, b) for a, b in zip(before, learner.weights, strict=True))
    moved = [not torch.equal(a, b) for a, b in zip(critics, learner.critics.parameters(), strict=True)]
    assert all(moved)
    critics = [w.clone() for w in learner.critics.parameters()]
    learner.improve_policy(lesson, 0)
    assert any(not torch.equal(a, b) for a, b in zip(before, learner.weights, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(critics, learner.critics.parameters(), strict=True))


def count(out):
    """Transitions of a run."""
    found = Buffers(out)
    found.refresh()
    return len(found)


def command(toy, policy, out, *knobs):
    return [
        "interact",
        "tabletop_interactive",
        *toy,
        *JOB,
        "--checkpoint",
        str(policy),
        "--out",
        str(out),
        *knobs,
    ]


@pytest.mark.slow
def test_the_job_and_its_resume(policy, toy, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(command(toy, policy, out)) == 0
    assert "transitions of" in capsys.readouterr().out
    rows = read_metrics(out / "metrics.jsonl")
    played = count(out)
    assert played >= 14
    assert len(rows) == int(0.5 * (played - 6))
    assert rows[-1].keys() >= {"critic_loss", "cloning_loss", "guided_loss", "transitions"}
    assert json.loads((out / "last" / "run.json").read_text())["step"] == len(rows)
    critics = load_file(out / "last" / "critics.safetensors")
    names = {name.partition(".")[0] for name in critics}
    assert names == {"critics", "targets"}
    # a run that is over has nothing left to do, and says so with the same weights
    shown = sorted((out / "transitions" / "demonstration").glob("*.npz"))
    assert read_transition(shown[-1]).success
    assert read_transition(shown[-1]).reward == pytest.approx(10 - 0.05 * read_transition(shown[-1]).steps)
    assert not read_transition(shown[0]).terminated
    before = (out / "last" / "critics.safetensors").read_bytes()
    assert main([*command(toy, policy, out), "--resume"]) == 0
    assert (out / "last" / "critics.safetensors").read_bytes() == before
    assert (
        main(["evaluate", "tabletop", *toy, "--checkpoint", str(out / "last"), "--out", str(tmp_path / "e")])
        == 0
    )


KILLED = """
import os, signal, sys
from lastr1.cli import main
from lastr1.train import guided

original = guided.InteractiveLearner.update
def update(self, buffers, step):
    if step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, buffers, step)
guided.InteractiveLearner.update = update
if __name__ == "__main__":
    main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_killed_learner_loses_no_transition(policy, toy, tmp_path):
    out, program = tmp_path / "run", tmp_path / "killed.py"
    program.write_text(KILLED)
    found = subprocess.run(
        [sys.executable, str(program), *command(toy, policy, out)],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert found.returncode == -signal.SIGKILL, found.stderr
    kept = {path: path.read_bytes() for path in (out / "transitions").rglob("[0-9]*.npz")}
    assert count(out) >= 12  # three updates' worth
    assert main([*command(toy, policy, out), "--resume"]) == 0
    assert all(path.read_bytes() == content for path, content in kept.items())
    rows = read_metrics(out / "metrics.jsonl")
    played = count(out)
    assert [row["step"] for row in rows] == list(range(int(0.5 * (played - 6))))
