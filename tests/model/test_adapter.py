"""LoRA: it starts as nothing, is all that learns, is small on disk, and merges into what it lay over."""

import builtins
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from lastr1.config import AdapterConfig
from lastr1.model import adapter as lora
from lastr1.model import weights
from lastr1.model.codec import Codec
from lastr1.model.shards import read_tensors
from lastr1.types import UserError

KNOBS = AdapterConfig(rank=4, alpha=6.0)
WITH_VISION = AdapterConfig(rank=4, alpha=6.0, vision=True)
MATRICES, VALUE = "adapter_model.safetensors", "value_head.safetensors"
FILES = ["adapter_config.json", MATRICES, "lastr1.json", "statistics.json", VALUE]
LAYER = "base_model.model.model.language_model.layers.1.self_attn.k_proj"


@pytest.fixture
def base(tiny, tmp_path):
    weights.save(tiny(seed=1), tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def adapted(base):
    """`adapted(knobs)`: an adapter over `base`, and a value head, as training might leave them."""

    def make(knobs=KNOBS):
        torch.manual_seed(2)
        bundle = weights.load(base, adapter=knobs)
        with torch.no_grad():
            for matrix in [*lora.matrices(bundle.policy.backbone).values(), bundle.policy.value_head[0].bias]:
                matrix.normal_(std=0.3)
        bundle.policy.calibrate(2.5)
        return weights.with_channels(bundle, (3, 5, 8))

    return make


@pytest.fixture
def saved(adapted, tmp_path):
    (tmp_path / "lora").mkdir()
    weights.write_trained(adapted(), tmp_path / "lora")
    return tmp_path / "lora"


@pytest.fixture
def said(observations, noise):
    """`said(bundle)`: the numbers of three decisions, all of them along the same thoughts and actions."""

    def terms(bundle, like=None):
        prompt, drawn = bundle.prompts.build(observations(3)), noise(bundle, range(3))
        chosen = (like or bundle).policy.decide(prompt, drawn)
        with torch.no_grad():
            found = bundle.policy.terms(prompt, chosen.thought, chosen.tokens)
        return torch.cat([found.latent.flatten(), found.action_logp, found.stop_logp, found.value])

    return terms


def refusal(directory, **knobs):
    """The one line of a UserError."""
    with pytest.raises(UserError) as caught:
        weights.load(directory, **knobs)
    text = str(caught.value)
    assert "\n" not in text
    return text


def change(directory, name, edit):
    stored = load_file(directory / name)
    edit(stored)
    save_file(stored, directory / name)


def test_a_new_adapter_changes_nothing(base, said):
    bundle = weights.load(base, adapter=WITH_VISION)
    plain = weights.load(base)
    assert torch.equal(said(bundle), said(plain))
    ours, theirs = weights.tensors(bundle.policy), weights.tensors(plain.policy)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_first_matrices_follow_the_seed(base):
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(lora.matrices(weights.load(base, adapter=KNOBS).policy.backbone))
    name = f"{LAYER}.lora_A.weight"
    assert torch.equal(found[0][name], found[1][name])
    assert not torch.equal(found[0][name], found[2][name])


@pytest.mark.parametrize(("knobs", "projections"), [(KNOBS, 2 * 4), (WITH_VISION, 2 * 4 + 2 * 2)])
def test_only_the_adapter_and_the_value_head_learn(adapted, observations, knobs, projections):
    """q, k, v, o of two layers; qkv and proj of two vision layers."""
    bundle = adapted(knobs)
    prompt = bundle.prompts.build(observations(2))
    decision = bundle.policy.decide(prompt)
    terms = bundle.policy.terms(prompt, decision.thought, decision.tokens)
    (terms.action_logp.sum() + terms.value.sum()).backward()
    moved = {name for name, p in bundle.policy.named_parameters() if p.grad is not None and p.grad.any()}
    head = {name for name in moved if name.startswith("value_head.")}
    assert {"value_head.0.weight", "value_head.6.bias"} <= head
    assert len(moved - head) == 2 * projections
    assert all(".lora_A." in name or ".lora_B." in name for name in moved - head)


@pytest.mark.parametrize("knobs", [KNOBS, WITH_VISION])
def test_merging_keeps_the_outputs(adapted, base, said, knobs, tmp_path):
    """Written as a full policy, by W + (alpha / rank) B A; on disk there is no trace of the adapter."""
    bundle = adapted(knobs)
    weights.save(bundle, tmp_path / "full")
    full = weights.load(tmp_path / "full")
    ours = said(bundle)
    assert (said(full, like=bundle) - ours).abs().max() < 2e-6 * ours.abs().max()
    assert not torch.allclose(said(weights.load(base), like=bundle), ours, rtol=0.1)
    assert (full.adapter, full.policy.latent_rms, full.channels) == (None, 2.5, (3, 5, 8))
    before, after = read_tensors(base), read_tensors(tmp_path / "full")
    assert before.keys() == after.keys()
    a, b = (lora.matrices(bundle.policy.backbone)[f"{LAYER}.lora_{x}.weight"] for x in "AB")
    name = LAYER.removeprefix("base_model.model.") + ".weight"
    expected = before[name] + 1.5 * b.detach() @ a.detach()  # 6 / 4
    assert torch.allclose(after[name], expected, atol=1e-6)
    assert (after[name] - before[name]).abs().max() > 0.1
    visual = "model.visual.blocks.0.attn.qkv."
    assert torch.equal(before[f"{visual}weight"], after[f"{visual}weight"]) is not knobs.vision
    assert torch.equal(before[f"{visual}bias"], after[f"{visual}bias"])


def test_what_is_on_disk(saved, base):
    """The matrices and the value head: nothing of the base but its path and the hash of its weights."""
    assert sorted(p.name for p in saved.iterdir()) == FILES
    names = {name for file in saved.glob("*.safetensors") for name in load_file(file)}
    assert not names & {n for n in read_tensors(base) if not n.startswith("value_head.")}
    matrices = load_file(saved / MATRICES)
    # 2 layers of q [64, 64], k and v [32, 64], o [64, 64]: 4 (I + O) numbers each
    assert sum(m.numel() for m in matrices.values()) == 2 * 4 * (128 + 96 + 96 + 128)
    facts = json.loads((saved / "lastr1.json").read_text())
    assert facts["base"]["path"] == str(base)
    assert facts["adapter"] == {"rank": 4, "alpha": 6.0, "vision": False}


def test_the_adapter_comes_back(adapted, saved, said):
    """To be trained on, and merged to be played with."""
    bundle = adapted()
    again, merged = weights.load(saved, adapter=KNOBS), weights.load(saved)
    ours, theirs = bundle.policy.state_dict(), again.policy.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert again.adapter == bundle.adapter
    trained = {name for name, p in again.policy.named_parameters() if p.requires_grad}
    assert trained == {name for name, p in bundle.policy.named_parameters() if p.requires_grad}
    assert merged.adapter is None
    assert all(p.requires_grad for p in merged.policy.parameters())
    assert (said(merged, like=bundle) - said(bundle)).abs().max() < 2e-6 * said(bundle).abs().max()
    for loaded in (again, merged):
        assert (loaded.spec, loaded.codec, loaded.channels) == (bundle.spec, bundle.codec, (3, 5, 8))
        assert (loaded.policy.latent_rms, loaded.policy.config) == (2.5, bundle.policy.config)


def test_matrices_over_a_base_in_bf16_are_fp32(base):
    backbone = weights.load(base, adapter=KNOBS, dtype=torch.bfloat16).policy.backbone
    assert backbone.head.dtype == torch.bfloat16
    assert {matrix.dtype for matrix in lora.matrices(backbone).values()} == {torch.float32}


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # asked by peft
def test_peft_reads_it(adapted, base, tmp_path):
    """Over the model as transformers builds it: the logits of the merged policy, read by transformers too."""
    from peft import PeftModel
    from transformers import Qwen3VLForConditionalGeneration

    bundle = adapted(WITH_VISION)
    weights.save(bundle, tmp_path / "full")
    (tmp_path / "lora").mkdir()
    weights.write_trained(bundle, tmp_path / "lora")
    plain, merged = (
        Qwen3VLForConditionalGeneration.from_pretrained(p).eval() for p in (base, tmp_path / "full")
    )
    prompt = torch.arange(12, 24)[None]
    picture = {
        "pixel_values": torch.randn(16, 1536, generator=torch.Generator().manual_seed(0)),
        "image_grid_thw": torch.tensor([[1, 4, 4]]),
    }
    token = plain.config.image_token_id
    prompt[:, 4:8] = token
    picture["mm_token_type_ids"] = (prompt == token).int()
    with torch.no_grad():
        before = plain(prompt, **picture).logits
        ours = PeftModel.from_pretrained(plain, tmp_path / "lora").eval()(prompt, **picture).logits
        expected = merged(prompt, **picture).logits
    assert not torch.allclose(before, expected, rtol=0.1, atol=0.1)
    assert torch.allclose(ours, expected, atol=1e-4)


def test_another_base_is_refused(saved, base):
    change(base, "model.safetensors", lambda stored: stored["model.language_model.norm.weight"].add_(1e-3))
    text = refusal(saved)
    assert all(part in text for part in (str(saved), str(base), "sha256"))


def test_a_missing_base_is_named(saved, base):
    base.rename(base.parent / "elsewhere")
    assert f"{base}, which is gone" in refusal(saved)


def test_a_base_that_has_moved_along(saved, base):
    """A path that is not absolute starts at the adapter's folder."""
    base.rename(saved / "base")
    facts = json.loads((saved / "lastr1.json").read_text())
    facts["base"]["path"] = "base"
    (saved / "lastr1.json").write_text(json.dumps(facts))
    assert weights.load(saved, adapter=KNOBS).adapter.base == saved / "base"


@pytest.mark.parametrize("name", [name for name in FILES if name != "adapter_config.json"])
def test_a_missing_or_damaged_file_is_named(saved, name):
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[: len(content) // 2])
    assert name in refusal(saved)
    (saved / name).unlink()
    assert name in refusal(saved)


def test_facts_without_a_base_are_damaged(saved):
    facts = json.loads((saved / "lastr1.json").read_text())
    for wrong in (
        {"base": {}},
        {"base": None},
        {"adapter": {"rank": 0}},
        {"adapter": {"rnk": 4}},
        {"adapter": 4},
    ):
        (saved / "lastr1.json").write_text(json.dumps({**facts, **wrong}))
        assert "lastr1.json is damaged" in refusal(saved)


def test_matrices_that_do_not_fit(saved):
    file, name = MATRICES, f"{LAYER}.lora_A.weight"
    change(saved, file, lambda stored: stored.update({name: torch.zeros(5, 64)}))
    assert f"{file}: {name} is [5, 64], not [4, 64]" in refusal(saved)
    change(saved, file, lambda stored: stored.pop(name))
    assert f"tensor {name} is missing" in refusal(saved)
    change(saved, file, lambda stored: stored.update({name: torch.zeros(4, 64), "x": torch.zeros(1)}))
    assert "tensor x is unknown" in refusal(saved)


def test_another_adapter_cannot_be_continued(saved):
    text = refusal(saved, adapter=AdapterConfig(rank=8, alpha=6.0))
    assert f"{saved} holds another adapter (rank: 4 against 8)" in text
    assert "lastr1 convert" in text


def test_a_released_checkpoint_under_an_adapter(qwen_folder, robot, tmp_path):
    """What its folder does not say is in the adapter's."""
    folder = qwen_folder(tmp_path / "released", ours=True)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    bundle = weights.load(folder, robot=robot(), adapter=KNOBS)
    bundle.policy.calibrate(0.7)
    (tmp_path / "lora").mkdir()
    weights.write_trained(bundle, tmp_path / "lora")
    again = weights.load(tmp_path / "lora")
    assert (again.spec, again.codec, again.policy.latent_rms) == (bundle.spec, bundle.codec, 0.7)
    ours, theirs = weights.tensors(bundle.policy), weights.tensors(again.policy)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_a_bare_model_is_converted_first(qwen_folder, robot, tmp_path):
    folder = qwen_folder(tmp_path / "bare")
    codec = Codec(q01=(-1.0,) * 4, q99=(1.0,) * 4, mask=(True,) * 4)
    assert "lastr1 convert" in refusal(folder, robot=robot(), codec=codec, adapter=KNOBS)


def test_without_peft(base, saved, monkeypatch):
    """The line to run; an adapter that is only played needs no peft."""
    original = builtins.__import__

    def absent(name, *arguments, **knobs):
        if name == "peft":
            raise ModuleNotFoundError("No module named 'peft'")
        return original(name, *arguments, **knobs)

    monkeypatch.setattr(builtins, "__import__", absent)
    assert "pip install 'lastr1[lora]'" in refusal(base, adapter=KNOBS)
    assert weights.load(saved).adapter is None


@pytest.mark.parametrize("wrong", [{"rank": -1}, {"alpha": 0.0}])
def test_knobs_that_mean_nothing(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AdapterConfig(**wrong)
