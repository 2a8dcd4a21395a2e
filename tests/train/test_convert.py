"""`lastr1 convert`: a released checkpoint or a Qwen3-VL into a policy, and back, through the command line."""

import json

import pytest
import torch
from safetensors.torch import load_file

from lastr1.cli import main
from lastr1.model import weights
from lastr1.train import convert as job

OPTIONS = [
    "--env.image",
    "32",
    "--threads",
    "1",
    "--processes",
    "1",
    "--env.workers",
    "0",
    "--env.slots",
    "2",
]


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Two thoughts instead of 256."""
    monkeypatch.setattr(job, "DECISIONS", 2)
    monkeypatch.setattr(job, "BATCH", 2)


@pytest.fixture
def lastr1():
    """`lastr1(job, source, out, ...)` of the embedded world; the exit code."""
    return lambda name, source, out, *knobs: main(
        [name, "tabletop", *OPTIONS, "--checkpoint", str(source), "--out", str(out), *map(str, knobs)]
    )


@pytest.fixture
def released(qwen_folder, tmp_path):
    return qwen_folder(tmp_path / "released", ours=True)


def numbers(directory):
    return {k: v for path in sorted(directory.glob("*.safetensors")) for k, v in load_file(path).items()}


def same(one, other):
    assert one.keys() == other.keys()
    assert all(a.dtype == other[name].dtype and torch.equal(a, other[name]) for name, a in one.items())


def test_there_and_back(released, lastr1, tmp_path, capsys):
    """Not a bit of a weight or of the statistics changes."""
    (released / "preprocessor_config.json").write_text('{"theirs": 1}')
    assert lastr1("convert", released, tmp_path / "ours") == 0
    assert capsys.readouterr().out == f"policy in {tmp_path / 'ours'}\n"
    bundle = weights.load(tmp_path / "ours")
    assert bundle.policy.config == weights.hub.RELEASED
    assert bundle.spec.name == "tabletop"
    assert bundle.policy.latent_rms != 1.0
    assert lastr1("convert", tmp_path / "ours", tmp_path / "back", "--to", "released") == 0
    for folder in ("ours", "back"):
        same(numbers(tmp_path / folder), numbers(released))
        statistics = json.loads((tmp_path / folder / "statistics.json").read_text())
        assert statistics == json.loads((released / "dataset_statistics.json").read_text())
        assert json.loads((tmp_path / folder / "preprocessor_config.json").read_text()) == {"theirs": 1}
    assert not (tmp_path / "back" / "lastr1.json").exists()
    assert weights.load(tmp_path / "back", robot=bundle.spec).codec == bundle.codec


def test_a_released_checkpoint_can_be_evaluated_as_it_is(released, lastr1, tmp_path, capsys):
    knobs = ["--evaluate.episodes", 1, "--env.tasks", 0]
    assert lastr1("evaluate", released, tmp_path / "evaluation", *knobs) == 0
    result = json.loads((tmp_path / "evaluation" / "result.json").read_text())
    assert result["total"]["episodes"] == 1


TRAIN = [
    "--reinforce.iterations",
    "1",
    "--reinforce.episodes",
    "4",
    "--env.tasks",
    "0",
    "--policy.image",
    "256",
]


def test_reinforcement_needs_the_scale_of_the_latents(released, lastr1, tmp_path, capsys):
    """Which a conversion measures."""
    assert lastr1("train", released, tmp_path / "run", *TRAIN, "--policy.crop", "0.9") == 2
    line = capsys.readouterr().err
    assert f"{released} does not hold the scale of its latents: measure it with lastr1 convert" in line
    assert lastr1("convert", released, tmp_path / "ours") == 0
    assert lastr1("train", tmp_path / "ours", tmp_path / "run", *TRAIN, "--policy.crop", "0.9") == 0
    rms = [weights.load(tmp_path / name).policy.latent_rms for name in ("ours", "run/last")]
    assert rms[0] == rms[1]


def test_a_downloaded_model_is_warmed_up(qwen_folder, toy, tmp_path, capsys):
    base = qwen_folder(tmp_path / "qwen")
    knobs = [*toy, "--base", str(base), "--out", str(tmp_path / "run"), "--env.tasks", "0"]
    assert main(["warmup", "tabletop", *knobs]) == 0
    assert f"warm-up: {base}: no value head: drawn" in capsys.readouterr().err
    bundle = weights.load(tmp_path / "run" / "last")
    assert bundle.policy.backbone.width == 32
    assert bundle.prompts.tokens.action == 256 + 10


def test_a_downloaded_model_is_converted(qwen_folder, lastr1, tmp_path, capsys):
    """The robot's limits stand in for statistics; nothing is measured on a model that was taught nothing."""
    base = qwen_folder(tmp_path / "qwen")
    assert lastr1("convert", base, tmp_path / "base") == 0
    told = capsys.readouterr().out
    assert "no action statistics of tabletop: those at hand are used" in told
    assert "no action or latent tokens: 259 added, their rows drawn" in told
    bundle = weights.load(tmp_path / "base")
    assert bundle.codec.q01 == (-1.0, -1.0, -1.0, 0.0)
    assert bundle.policy.latent_rms == 1.0
    assert {t.dtype for t in numbers(tmp_path / "base").values()} == {torch.bfloat16}


def test_a_mistake_is_one_line(released, qwen_folder, refused, tmp_path):
    def convert(source, out, *knobs):
        return refused("convert", "tabletop", *OPTIONS, "--checkpoint", source, "--out", out, *knobs)

    assert "convert needs --checkpoint DIR and --out DIR" in refused("convert", "tabletop", *OPTIONS)
    assert f"{tmp_path} is not empty" in convert(released, tmp_path)
    assert "model.safetensors is missing" in convert(tmp_path / "nowhere", tmp_path / "out")
    (shard, *_) = sorted(released.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-9])
    assert f"{shard} is damaged" in convert(released, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_release_counts_from_the_end(released, lastr1, refused, tmp_path):
    text = (released / "tokenizer.json").read_text()
    tokenizer = weights.hub.read_tokenizer(released)
    tokenizer.add_special_tokens(["<mine>"])
    assert tokenizer.to_str() != text
    tokenizer.save(str(released / "tokenizer.json"))
    assert lastr1("convert", released, tmp_path / "ours") == 0
    knobs = [*OPTIONS, "--checkpoint", tmp_path / "ours", "--out", tmp_path / "back", "--to", "released"]
    line = refused("convert", "tabletop", *knobs)
    assert "<action_0> at 267, not 266: keep the lastr1 layout" in line
