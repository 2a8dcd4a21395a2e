"""Policy processes side by side: what they do together is what one does alone."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from lastr1.cli import main
from lastr1.config import Config
from lastr1.envs.base import Start
from lastr1.knobs import from_dict
from lastr1.rollout.batch import make_rollout
from lastr1.train import run
from lastr1.train.learner import Learner, shares
from lastr1.train.reinforce import improve
from lastr1.train.team import open_team

STARTS = [Start(task=i % 4, seed=100 + i) for i in range(5)]


@pytest.fixture(scope="module")
def warmed(tmp_path_factory, toy):
    """A toy policy, and the config of the run that made it."""
    out = tmp_path_factory.mktemp("team")
    assert main(["warmup", "tabletop", *toy, "--out", str(out)]) == 0
    return out / "last", from_dict(Config, json.loads((out / "config.json").read_text()))


@pytest.fixture
def open_toy(warmed):
    """`open_toy(processes)`: a team on the toy policy, each process with so many simulator processes."""

    def open_with(processes, workers=0):
        config = warmed[1]
        env = replace(config.env, workers=workers)
        return open_team(replace(config, processes=processes, env=env), warmed[0])

    return open_with


def test_shares_are_runs_of_nearly_equal_length():
    assert [rows.tolist() for rows in shares(7, 3)] == [[0, 1, 2], [3, 4], [5, 6]]
    assert [len(rows) for rows in shares(1, 2)] == [1, 0]


def _facts(episode):
    return (
        episode.start,
        episode.success,
        [(s.reward, s.steps, s.decided.tokens.tolist()) for s in episode.steps],
    )


@pytest.mark.slow
@pytest.mark.parametrize("noise", [None, 3])
def test_two_processes_play_the_episodes_of_one(open_toy, noise):
    """In the order of the starts, also when there are fewer starts than processes."""
    found = []
    for processes, workers in ((1, 0), (2, 1)):
        with open_toy(processes, workers) as team:
            team.version, seen = 7, []
            episodes = team.play(STARTS, noise=noise, progress=seen.append)
            assert len(seen) == len(STARTS)
            assert {e.version for e in episodes} == {7}
            found.append([_facts(e) for e in [*episodes, *team.play(STARTS[:1], noise=noise)]])
    assert found[0] == found[1]


@pytest.mark.slow
def test_only_one_process_reads_the_policy(warmed, tmp_path, monkeypatch):
    """What lies on disk may be another one by the time the second begins."""
    checkpoint, read = shutil.copytree(warmed[0], tmp_path / "last"), run.load_policy

    def read_and_remove(directory, *arguments):
        bundle = read(directory, *arguments)
        shutil.rmtree(directory)
        return bundle

    monkeypatch.setattr(run, "load_policy", read_and_remove)
    with open_team(replace(warmed[1], processes=2), checkpoint) as team:
        assert len(team.play(STARTS[:2], noise=3)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [True, False])
def test_two_processes_learn_what_one_learns(warmed, open_toy, recompute):
    """The same rollout leads to the same weights, and the other process plays with them at once."""
    config = warmed[1]
    config = replace(config, reinforce=replace(config.reinforce, recompute_old=recompute, minibatches=2))
    rollout, found = None, []
    for processes in (1, 2):
        with open_toy(processes) as team:
            rollout = rollout or make_rollout(team.play(STARTS, noise=3))
            learner = Learner(team.bundle, config.lapo, config.optimizer, team.replicas)
            before = torch.cat([p.detach().flatten() for p in team.bundle.policy.parameters()])
            figures = improve(learner, rollout, config, 0)
            after = torch.cat([p.detach().flatten() for p in team.bundle.policy.parameters()])
            found.append((before, after, figures, learner.rescore(rollout.decisions)))
    (before, alone, figures, terms), (_, together, same_figures, same_terms) = found
    moved = float((alone - before).norm())
    assert moved > 1e-4
    assert float((together - alone).norm()) < 0.02 * moved
    for name, value in figures.items():
        assert same_figures[name] == pytest.approx(value, rel=1e-2, abs=1e-3), name
    # The second half of these was computed by the other process.
    assert torch.allclose(terms.action_logp, same_terms.action_logp, atol=1e-3)
    assert torch.allclose(terms.value, same_terms.value, atol=1e-3)


@pytest.mark.slow
def test_a_failure_beside_us_is_raised_here(open_toy):
    """What went wrong in the other process; and when it is gone, how to go on."""
    with open_toy(2) as team:
        answer = team.replicas[0].submit("rescore", "not decisions")
        with pytest.raises(RuntimeError, match=r"policy process 1: .*(TypeError|AttributeError)"):
            answer()
        team.replicas[0]._process.kill()
        with pytest.raises(RuntimeError, match=r"policy process 1 died .*--resume"):
            team.play(STARTS, noise=None)
