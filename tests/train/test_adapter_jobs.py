"""LoRA through the command line: trained beside a frozen base, resumed, evaluated, continued and merged."""

import json

import pytest
import torch
from safetensors.torch import load_file

from lastr1.cli import main
from lastr1.config import AdapterConfig
from lastr1.model import weights
from lastr1.train.reinforce import LocalFleet

LORA = ("--adapter.rank", "4", "--adapter.alpha", "8", "--optimizer.lr", "1e-2", "--optimizer.ramp", "0")
FILES = ["adapter_model.safetensors", "value_head.safetensors", "optimizer.safetensors"]


@pytest.fixture(scope="module")
def lastr1(toy):
    """`lastr1(job, ..., code=0)`: one command on `tabletop`; its knobs after the toy's."""

    def run(job, *knobs, code=0):
        assert main([job, "tabletop", *toy, *map(str, knobs)]) == code

    return run


@pytest.fixture(scope="module")
def root(tmp_path_factory, lastr1):
    """A toy policy in `warmup/last`, and an adapter trained over it in `train/last`."""
    root = tmp_path_factory.mktemp("lora")
    lastr1("warmup", "--out", root / "warmup")
    lastr1("train", "--checkpoint", root / "warmup" / "last", "--out", root / "train", *LORA)
    return root


def test_what_a_run_leaves_behind(root):
    """Matrices and a value head that have moved, moments of nothing else, and the base as it was."""
    last, base = root / "train" / "last", root / "warmup" / "last"
    matrices, value, moments = (load_file(last / name) for name in FILES)
    assert len(matrices) == 2 * 4  # q, k, v, o of one layer
    assert all(m.any() for name, m in matrices.items() if ".lora_B." in name)
    before = load_file(base / "model.safetensors")
    assert any(not torch.equal(tensor, before[name]) for name, tensor in value.items())
    assert not (last / "model.safetensors").exists()
    shapes = sorted(tuple(t.shape) for t in [*matrices.values(), *value.values()])
    assert sorted(tuple(t.shape) for name, t in moments.items() if name.endswith("exp_avg")) == shapes
    assert weights.load(last, adapter=AdapterConfig(rank=4, alpha=8.0)).adapter.base == base.resolve()


def test_the_same_seed_gives_the_same_adapter(root, tmp_path, lastr1):
    found = []
    for seed in (0, 1):
        out = tmp_path / str(seed)
        knobs = ("--checkpoint", root / "warmup" / "last", "--seed", seed)
        lastr1("train", *knobs, "--out", out, *LORA)
        found.append(load_file(out / "last" / FILES[0]))
    first = load_file(root / "train" / "last" / FILES[0])
    assert all(torch.equal(first[name], found[0][name]) for name in first)
    assert not any(torch.equal(first[name], found[1][name]) for name in first)


def test_resume_equals_never_stopped(root, tmp_path, monkeypatch, lastr1):
    knobs = (*LORA, "--checkpoint", root / "warmup" / "last", "--reinforce.iterations", "3")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    lastr1("train", *knobs, "--out", whole)
    original = LocalFleet.update

    def interrupted(self, *arguments):
        if arguments[-1] == 1:
            raise KeyboardInterrupt
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(LocalFleet, "update", interrupted)
        lastr1("train", *knobs, "--out", parts, code=130)
    assert json.loads((parts / "last" / "run.json").read_text())["step"] == 1
    lastr1("train", *knobs, "--out", parts, "--resume")
    for name in (*FILES, "adapter_config.json", "lastr1.json", "statistics.json"):
        assert (whole / "last" / name).read_bytes() == (parts / "last" / name).read_bytes(), name


def rows(directory):
    found = json.loads((directory / "result.json").read_text())["rows"]
    return [{name: value for name, value in row.items() if "seconds" not in name} for row in found]


def test_evaluated_and_merged(root, tmp_path, lastr1):
    """Evaluation takes the adapter by its folder; what `convert` writes is the very policy that it played."""
    last, full = root / "train" / "last", tmp_path / "full"
    lastr1("evaluate", "--checkpoint", last, "--out", tmp_path / "a")
    lastr1("convert", "--checkpoint", last, "--out", full)
    lastr1("evaluate", "--checkpoint", full, "--out", tmp_path / "b")
    assert rows(tmp_path / "a") == rows(tmp_path / "b")
    assert not list(full.glob("adapter*"))
    ours, theirs = (weights.tensors(weights.load(path).policy) for path in (last, full))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    before = load_file(root / "warmup" / "last" / "model.safetensors")
    changed = {name for name, tensor in ours.items() if not torch.equal(tensor, before[name])}
    assert {name.split(".")[-2] for name in changed if "value_head" not in name} == {
        "q_proj", "k_proj", "v_proj", "o_proj",
    }  # fmt: skip


def test_warmed_up_then_reinforced(root, tmp_path, lastr1):
    """One adapter over a base that stays the same; with rank 0 it is merged, and every weight learns."""
    base, warm = root / "warmup" / "last", tmp_path / "warm" / "last"
    lastr1("warmup", "--base", base, "--out", warm.parent, *LORA)
    lastr1("train", "--checkpoint", warm, "--out", tmp_path / "train", *LORA)
    knobs = AdapterConfig(rank=4, alpha=8.0)
    taught, improved = (weights.load(path, adapter=knobs) for path in (warm, tmp_path / "train" / "last"))
    assert taught.adapter == improved.adapter
    assert taught.adapter.base == base.resolve()
    assert taught.policy.latent_rms == improved.policy.latent_rms
    assert all(m.any() for name, m in load_file(warm / FILES[0]).items() if ".lora_B." in name)
    lastr1("train", "--checkpoint", warm, "--out", tmp_path / "all")
    assert (tmp_path / "all" / "last" / "model.safetensors").exists()


@pytest.mark.slow
def test_two_processes_train_what_one_trains(root, tmp_path, lastr1):
    """Gradients of the matrices come back from the other process, and it plays with what they became."""
    found = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        knobs = ("--processes", processes, "--checkpoint", root / "warmup" / "last", "--out", out)
        lastr1("train", *knobs, *LORA, "--reinforce.iterations", "1", "--env.workers", "0")
        files = [load_file(out / "last" / name) for name in FILES[:2]]
        found.append(torch.cat([file[name].flatten() for file in files for name in sorted(file)]))
    started = load_file(root / "warmup" / "last" / "model.safetensors")
    value = torch.cat([started[name].flatten() for name in sorted(started) if name.startswith("value_head.")])
    alone, together = found
    moved = (alone[-len(value) :] - value).norm()
    assert moved > 1e-4
    assert (alone - together).norm() < 0.02 * moved


def test_what_does_not_fit_is_refused(root, tmp_path, refused, toy):
    last, base = root / "train" / "last", root / "warmup" / "last"
    knobs = ("train", "tabletop", *toy, "--checkpoint", base)
    line = refused(*knobs, "--out", last.parent, "--resume", *LORA, "--adapter.rank", "2")
    assert "adapter.rank: 4 against 2" in line
    line = refused(
        "train", "tabletop", *toy, "--checkpoint", last, "--out", tmp_path / "a", "--adapter.rank", "2"
    )
    assert "holds another adapter (rank: 4 against 2; alpha: 8.0 against 32.0)" in line
    line = refused(*knobs, "--out", tmp_path / "b", *LORA, "--adapter.vision")
    assert "freeze_vision" in line
    line = refused("warmup", "tabletop", *toy, "--out", tmp_path / "c", *LORA)
    assert "--base" in line
    assert "rank must be 0 or more, not -1" in refused(
        *knobs, "--out", tmp_path / "d", "--adapter.rank", "-1"
    )
