"""A policy on disk: what comes back, what is refused, and that nothing is lost on the way."""

import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lastr1.config import PolicyConfig
from lastr1.model import weights
from lastr1.model.codec import Codec
from lastr1.types import UserError

FILES = [
    "README.md",
    "config.json",
    "lastr1.json",
    "model.safetensors",
    "statistics.json",
    "tokenizer.json",
    "tokenizer_config.json",
]
READ = [name for name in FILES if name not in ("README.md", "tokenizer_config.json")]


@pytest.fixture
def bundle(tiny):
    """Random, calibrated, with channels: nothing is at its default."""
    made = weights.with_channels(tiny(eval_stop="first", temperature=1.25), (3, 5, 8))
    made.policy.calibrate(2.5)
    return made


@pytest.fixture
def saved(bundle, tmp_path):
    weights.save(bundle, tmp_path / "policy")
    return tmp_path / "policy"


def refusal(directory):
    """The one line of a UserError."""
    with pytest.raises(UserError) as caught:
        weights.load(directory)
    text = str(caught.value)
    assert "\n" not in text
    return text


def change_tensors(directory, change):
    stored = load_file(directory / "model.safetensors")
    change(stored)
    save_file(stored, directory / "model.safetensors")


def test_what_was_saved_comes_back(bundle, saved, observations, noise):
    loaded = weights.load(saved)
    ours, theirs = weights.tensors(bundle.policy), weights.tensors(loaded.policy)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert loaded.policy.config == bundle.policy.config
    assert (loaded.spec, loaded.codec, loaded.channels) == (bundle.spec, bundle.codec, (3, 5, 8))
    assert loaded.policy.latent_rms == 2.5
    assert loaded.policy.latent == bundle.policy.latent
    drawn = noise(bundle, range(3))
    a, b = (x.policy.decide(x.prompts.build(observations(3)), drawn) for x in (bundle, loaded))
    assert torch.equal(a.tokens, b.tokens)
    assert torch.equal(a.terms.action_logp, b.terms.action_logp)
    assert torch.equal(a.thought.latent, b.thought.latent)
    assert sorted(p.name for p in saved.iterdir() if p.name != "generation_config.json") == FILES


def test_saving_twice_is_byte_identical(bundle, saved, tmp_path):
    weights.save(weights.load(saved), tmp_path / "again")
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes(), name


def test_the_tied_head_is_stored_once_and_stays_tied(saved):
    assert "lm_head.weight" not in load_file(saved / "model.safetensors")
    policy = weights.load(saved).policy
    with torch.no_grad():
        policy.backbone.net.model.language_model.embed_tokens.weight[7] += 1.0
    assert torch.equal(policy.backbone.head[7], policy.backbone.embed(torch.tensor(7)))


def test_saved_in_bf16(bundle, tmp_path):
    """Half the bytes; loads as fp32 numbers rounded to bf16."""
    weights.save(bundle, tmp_path / "small", dtype=torch.bfloat16)
    stored = load_file(tmp_path / "small" / "model.safetensors")
    assert {t.dtype for t in stored.values()} == {torch.bfloat16}
    loaded, ours = weights.tensors(weights.load(tmp_path / "small").policy), weights.tensors(bundle.policy)
    assert all(torch.equal(loaded[name], ours[name].bfloat16().float()) for name in ours)


def test_other_knobs_for_the_same_weights(saved):
    """A base that learns to think otherwise."""
    knobs = PolicyConfig(image=64, crop=1.0, chunk=2, stop_candidates=2, latents_per_group=4)
    loaded = weights.load(saved, policy=knobs).policy
    assert loaded.config == knobs
    assert loaded.action_tokens == 8
    assert weights.stored_policy(saved).stop_candidates == 4


def test_names_are_those_of_hugging_face(saved):
    names = load_file(saved / "model.safetensors").keys()
    tops = {".".join(name.split(".")[:2]) for name in names}
    assert tops == {"model.visual", "model.language_model", "value_head.mlp"}
    assert {f"value_head.mlp.{i}.{p}" for i in (0, 2, 4, 6) for p in ("weight", "bias")} <= names


@pytest.mark.parametrize("name", READ)
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    assert name in refusal(saved)


@pytest.mark.parametrize("name", READ)
def test_a_damaged_file_is_named(saved, name):
    content = (saved / name).read_bytes()
    for damage in (content[: len(content) // 2], b"", b"\x80\x81" + content):
        (saved / name).write_bytes(damage)
        text = refusal(saved)
        assert name in text
        assert "damaged" in text


def test_a_missing_tensor_is_named(saved):
    change_tensors(saved, lambda stored: stored.pop("value_head.mlp.2.bias"))
    assert "tensor value_head.mlp.2.bias is missing" in refusal(saved)


def test_an_unknown_tensor_is_named(saved):
    change_tensors(saved, lambda stored: stored.update({"lora.weight": torch.zeros(3)}))
    assert "tensor lora.weight is unknown" in refusal(saved)


def test_a_misshaped_tensor_is_named(saved):
    name = "model.language_model.layers.1.mlp.up_proj.weight"
    change_tensors(saved, lambda stored: stored.update({name: torch.zeros(96, 63)}))
    text = refusal(saved)
    assert name in text
    assert "[96, 63], not [96, 64]" in text


def test_nothing_is_changed_by_weights_that_do_not_fit(bundle):
    before = {name: tensor.clone() for name, tensor in weights.tensors(bundle.policy).items()}
    other = {name: torch.zeros_like(tensor) for name, tensor in before.items()}
    other.pop("value_head.mlp.0.bias")
    with pytest.raises(UserError, match=r"^here: tensor value_head\.mlp\.0\.bias is missing$"):
        weights.fill(bundle.policy, other, "here")
    assert all(torch.equal(before[n], t) for n, t in weights.tensors(bundle.policy).items())


def test_another_format_is_refused(saved):
    facts = json.loads((saved / "lastr1.json").read_text())
    (saved / "lastr1.json").write_text(json.dumps({**facts, "format": 99}))
    assert "not a lastr1 policy of format 1" in refusal(saved)


def test_a_folder_without_a_policy(tmp_path):
    assert "is not a policy: lastr1.json is missing" in refusal(tmp_path)


@pytest.mark.parametrize("failing", [1, 2])
def test_an_interrupted_rename_leaves_the_old_policy(bundle, saved, monkeypatch, failing):
    before = {p.name: p.read_bytes() for p in saved.iterdir()}
    with torch.no_grad():
        bundle.policy.value_head[0].bias += 1.0
    replace, calls = os.replace, []

    def interrupted(source, target):
        calls.append(source)
        if len(calls) == failing:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        weights.save(bundle, saved)
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before
    assert [p.name for p in saved.parent.iterdir()] == ["policy"]


def test_a_full_disk_leaves_the_old_policy(bundle, saved, monkeypatch):
    before = {p.name: p.read_bytes() for p in saved.iterdir()}

    def full(path, value):
        raise OSError("no space left on device")

    monkeypatch.setattr(weights.hub, "write_json", full)
    with pytest.raises(OSError, match="no space"):
        weights.save(bundle, saved)
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before
    assert [p.name for p in saved.parent.iterdir()] == ["policy"]


def test_saving_replaces(bundle, saved):
    (saved / "left over").write_text("")
    with torch.no_grad():
        bundle.policy.value_head[0].bias += 1.0
    weights.save(bundle, saved)
    assert torch.equal(weights.load(saved).policy.value_head[0].bias, bundle.policy.value_head[0].bias)
    assert not (saved / "left over").exists()
    assert [p.name for p in saved.parent.iterdir()] == ["policy"]


def test_the_same_weights_for_another_robot(bundle, robot, observations):
    """Prompts, action slots and statistics are the new robot's."""
    spec = robot(2)
    codec = Codec(q01=(0.0,) * 4, q99=(1.0,) * 4, mask=(True,) * 4)
    trained = weights.tensors(bundle.policy)
    moved = weights.with_robot(bundle, spec, codec)
    assert (moved.spec, moved.codec, moved.channels) == (spec, codec, bundle.channels)
    assert moved.prompts.cameras == ("camera0", "camera1")
    assert all(torch.equal(trained[n], t) for n, t in weights.tensors(moved.policy).items())
    decision = moved.policy.decide(moved.prompts.build(observations(2, cameras=2)))
    assert codec.decode(np.asarray(decision.tokens).reshape(2, 3, 4)).shape == (2, 3, 4)
    one_arm = robot()
    two_arms = weights.with_robot(
        bundle,
        type(one_arm)(**{**vars(one_arm), "action": one_arm.action * 2, "hold": one_arm.hold * 2}),
        codec,
    )
    assert two_arms.policy.action_tokens == 3 * 8
