"""Learner ranks: what several learn together is what one learner learns alone.

This file is also the program of a rank: `python test_ranks.py FOLDER RANK RANKS MICRO_BATCH`.
"""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file

from lastr1.config import Config
from lastr1.envs.base import Start
from lastr1.knobs import from_dict
from lastr1.rollout.batch import make_rollout
from lastr1.train import run
from lastr1.train.checkpoint import Store
from lastr1.train.learner import Learner
from lastr1.train.ranks import RankLearner, join, leave
from lastr1.train.reinforce import improve
from lastr1.train.team import open_team

STARTS = [Start(task=i % 4, seed=100 + i) for i in range(2)]
CPU = torch.device("cpu")


def recipe(folder: Path, micro_batch: int = 64) -> Config:
    config = from_dict(Config, json.loads((folder / "config.json").read_text()))
    optimizer = replace(config.optimizer, micro_batch=micro_batch, ramp=0, lr=1e-3)
    job = replace(config.reinforce, minibatches=2)
    return replace(config, optimizer=optimizer, reinforce=job)


def learn(folder, config, make):
    """Two iterations on one rollout; a checkpoint after the first, what was computed after the second."""
    run.begin(config)
    with open_team(config, folder / "last", training=True) as team:
        rollout = make_rollout(team.play(STARTS, noise=3))
        learner, save = make(team.bundle)
        terms = learner.rescore(rollout.decisions)
        figures = [improve(learner, rollout, config, 0)]
        save(learner, 1)
        figures.append(improve(learner, rollout, config, 1))
        save(learner, 2)
    return terms, figures


def main(folder: Path, rank: int, ranks: int, micro_batch: int) -> None:
    torch.set_num_threads(1)
    config, out = recipe(folder, micro_batch), folder / f"micro_batch_{micro_batch}"
    join(dist.FileStore(f"{out}.meeting", ranks), rank, ranks, CPU)
    store = Store(directory=out)
    terms, figures = learn(
        folder, config, lambda b: (RankLearner(b, config, 4), lambda x, n: x.save(store, n, {}, None))
    )
    # Resumed from the first checkpoint, the second iteration is the same.
    dist.barrier()
    with (
        open_team(config, out / "step_000001", training=True) as team,
        open_team(config, folder / "last", training=True) as first,
    ):
        rollout = make_rollout(first.play(STARTS, noise=3))
        learner = RankLearner(team.bundle, config, 4)
        learner.recall(out / "step_000001")
        improve(learner, rollout, config, 1)
        learner.save(Store(directory=out / "resumed"), 2, {}, None)
    if rank == 0:
        save_file({"action": terms.action_logp, "latent": terms.latent}, out / "terms.safetensors")
        (out / "figures.json").write_text(json.dumps(figures))
    dist.barrier()
    leave()


@pytest.fixture(scope="module")
def warmed(tmp_path_factory, toy):
    """A run directory with a toy policy and its config."""
    from lastr1.cli import main as command

    out = tmp_path_factory.mktemp("ranks")
    assert command(["warmup", "tabletop", *toy, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def alone(warmed):
    """Terms, figures and checkpoints of a learner without ranks."""
    config, store = recipe(warmed), Store(directory=warmed / "alone")

    def save(learner, step):
        store.save(learner.bundle, learner.optimizer, config, step)

    return learn(warmed, config, lambda b: (Learner(b, config.lapo, config.optimizer, steps=4), save))


def together(folder, ranks, micro_batch):
    """The same by ranks in processes of their own; their folder."""
    programs = [
        subprocess.Popen(
            [sys.executable, __file__, str(folder), str(rank), str(ranks), str(micro_batch)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]
    errors = [program.communicate(timeout=300)[1] for program in programs]
    assert all(program.returncode == 0 for program in programs), "\n".join(errors)
    return folder / f"micro_batch_{micro_batch}"


def moved(before: Path, after: Path) -> tuple[float, dict[str, torch.Tensor]]:
    first, last = load_file(before / "model.safetensors"), load_file(after / "model.safetensors")
    return sum(float((last[k] - first[k]).square().sum()) for k in last) ** 0.5, last


def _has_moments_of(alone: Path, checkpoint: Path) -> None:
    """A checkpoint of ranks is one like any other."""
    expected, found = (load_file(x / "optimizer.safetensors") for x in (alone, checkpoint))
    assert {k: v.shape for k, v in expected.items()} == {k: v.shape for k, v in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch", [64, 1])
def test_ranks_learn_what_one_learner_learns(warmed, alone, micro_batch):
    """Also with shares of unequal length, and while a rank has nothing left to do."""
    terms, figures = alone
    out = together(warmed, 2, micro_batch)
    found = load_file(out / "terms.safetensors")
    assert torch.allclose(found["action"], terms.action_logp, atol=1e-4)
    assert torch.allclose(found["latent"], terms.latent, atol=1e-4)
    for here, there in zip(figures, json.loads((out / "figures.json").read_text()), strict=True):
        assert here.keys() == there.keys()
        for name, value in here.items():
            assert there[name] == pytest.approx(value, rel=1e-3, abs=1e-4), name
    for step in ("step_000001", "step_000002"):
        distance, weights = moved(warmed / "last", warmed / "alone" / step)
        same = load_file(out / step / "model.safetensors")
        assert distance > 1e-2
        apart = sum(float((weights[k] - same[k]).square().sum()) for k in weights) ** 0.5
        assert apart < 0.01 * distance
    _has_moments_of(warmed / "alone" / "last", out / "last")
    again = load_file(out / "resumed" / "last" / "model.safetensors")
    for name, value in load_file(out / "last" / "model.safetensors").items():
        assert torch.equal(value, again[name]), name


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(x) for x in sys.argv[2:]))
