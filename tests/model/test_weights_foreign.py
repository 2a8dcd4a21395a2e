"""Folders of others: released checkpoints, and a Qwen3-VL as it is downloaded (ALGORITHM.md 2.2, 2.11)."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoTokenizer, Qwen3VLForConditionalGeneration

from lastr1.config import PolicyConfig
from lastr1.model import hub, weights
from lastr1.model.codec import Codec
from lastr1.types import UserError

EMBEDDING, HEAD = "model.language_model.embed_tokens.weight", "lm_head.weight"
LIMITS = Codec(q01=(-1.0, -1.0, -1.0, 0.0), q99=(1.0,) * 4, mask=(True, True, True, False))
SMALL = PolicyConfig(image=64, crop=1.0, chunk=2)


@pytest.fixture
def released(qwen_folder, tmp_path):
    return qwen_folder(tmp_path / "released", ours=True)


@pytest.fixture
def downloaded(qwen_folder, tmp_path):
    return qwen_folder(tmp_path / "qwen")


@pytest.fixture
def refusal(robot):
    """`refusal(directory, **knobs)`: the one line of a UserError."""

    def check(directory, **knobs):
        with pytest.raises(UserError) as caught:
            weights.load(directory, robot=robot(), **knobs)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return check


def stored(directory):
    return {k: v for path in sorted(directory.glob("*.safetensors")) for k, v in load_file(path).items()}


def change(directory, edit):
    """All tensors in one file, edited."""
    found = stored(directory)
    for path in directory.glob("model*"):
        path.unlink()
    edit(found)
    save_file(found, directory / "model.safetensors")


def edit_json(path, edit):
    facts = json.loads(path.read_text())
    edit(facts)
    path.write_text(json.dumps(facts))


@pytest.mark.parametrize("tied", [True, False])
def test_a_released_checkpoint(qwen_folder, tmp_path, robot, observations, tied):
    """Shards in bf16, first statistics entry, value head; every number arrives."""
    folder = qwen_folder(tmp_path / "released", ours=True, tied=tied)
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    bundle = weights.load(folder, robot=robot())
    found, expected = weights.tensors(bundle.policy), stored(folder)
    assert found.keys() == expected.keys()
    assert (HEAD in found) is not tied
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}, "config.json says bfloat16"
    assert all(torch.equal(found[name], expected[name].float()) for name in found)
    assert (bundle.spec, bundle.policy.config, bundle.remarks) == (robot(), hub.RELEASED, ())
    assert weights.stored_policy(folder) == hub.RELEASED
    assert bundle.codec == Codec(q01=(-0.9, -0.5, -1.0, 0.0), q99=(0.7, 0.8, 1.0, 1.0), mask=LIMITS.mask)
    bundle = weights.load(folder, robot=robot(), policy=SMALL)
    decision = bundle.policy.decide(bundle.prompts.build(observations(2)))
    assert decision.tokens.shape == (2, 2 * 4)
    assert torch.isfinite(decision.terms.action_logp).all()


def test_what_the_released_checkpoints_do():
    """K = 4, G = 2, 8 control steps, images of 256 pixels cropped by 0.9, temperature 1.6, p >= 0.99."""
    knobs = hub.RELEASED
    assert (knobs.stop_candidates, knobs.latents_per_group, knobs.chunk) == (4, 2, 8)
    assert (knobs.image, knobs.crop, knobs.temperature) == (256, 0.9, 1.6)
    assert (knobs.latent_policy, knobs.latent_sigma) == ("deterministic", 10.0)
    assert (knobs.stop_likelihood, knobs.eval_stop, knobs.stop_threshold) == ("released", "first", 0.99)


def test_a_released_checkpoint_without_a_value_head(released, robot):
    """The eight tensors are drawn as in section 2.10, and it is said."""

    def without(found):
        for name in [name for name in found if name.startswith("value_head.")]:
            del found[name]

    change(released, without)
    bundle = weights.load(released, robot=robot())
    assert bundle.remarks == (f"{released}: no value head: drawn",)
    head = bundle.policy.value_head
    assert head[0].weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert all(layer.bias.eq(0).all() for layer in head[::2])


def test_a_downloaded_model_as_a_base(downloaded, robot, observations):
    """259 tokens at the end of the vocabulary; only their rows are new."""
    known = Tokenizer.from_file(str(downloaded / "tokenizer.json")).get_vocab_size()
    change(downloaded, lambda found: found[EMBEDDING][:known].add_(0.5))
    torch.manual_seed(5)
    bundle = weights.load(downloaded, robot=robot(), codec=LIMITS, policy=SMALL)
    assert (bundle.bare, bundle.codec, bundle.spec) == (True, LIMITS, robot())
    assert len(bundle.remarks) == 3
    tokens = bundle.prompts.tokens
    assert (tokens.action, tokens.latent_start, tokens.latent_end) == (known, known + 256, known + 257)
    assert bundle.prompts.tokenizer.token_to_id("<latent_pad>") == known + 258
    found, expected = weights.tensors(bundle.policy), stored(downloaded)
    assert {name for name in found if name not in expected} == {
        f"value_head.mlp.{i}.{kind}" for i in (0, 2, 4, 6) for kind in ("weight", "bias")
    }
    assert all(torch.equal(found[name], expected[name].float()) for name in expected if name != EMBEDDING)
    old, new = expected[EMBEDDING].float(), found[EMBEDDING]
    assert torch.equal(new[:known], old[:known])
    assert torch.equal(new[known + 259 :], old[known + 259 :])
    drawn = new[known : known + 259] - old[:known].mean(0)
    assert drawn.mean().abs() < 0.001
    assert drawn.std().item() == pytest.approx(0.02, rel=0.03)
    assert bundle.policy.decide(bundle.prompts.build(observations(2))).tokens.shape == (2, 8)


def test_both_matrices_of_an_untied_model_get_rows(qwen_folder, tmp_path, robot):
    folder = qwen_folder(tmp_path / "qwen", tied=False)
    change(folder, lambda found: (found[EMBEDDING][:200].add_(0.5), found[HEAD][:200].sub_(1.0)))
    bundle = weights.load(folder, robot=robot(), codec=LIMITS)
    first, old = bundle.prompts.tokens.action, stored(folder)
    for name in (EMBEDDING, HEAD):
        rows = weights.tensors(bundle.policy)[name][first : first + 259]
        drawn = rows - old[name][:first].float().mean(0)
        assert drawn.mean().abs() < 0.001
        assert drawn.std().item() == pytest.approx(0.02, rel=0.03)
    assert not torch.equal(bundle.policy.backbone.head, weights.tensors(bundle.policy)[EMBEDDING])


def test_the_same_seed_draws_the_same(downloaded, robot):
    found = []
    for _ in range(2):
        torch.manual_seed(5)
        found.append(weights.tensors(weights.load(downloaded, robot=robot(), codec=LIMITS).policy))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_a_base_that_was_saved_is_complete(downloaded, robot, tmp_path):
    bundle = weights.load(downloaded, robot=robot(), codec=LIMITS)
    weights.save(bundle, tmp_path / "base")
    again = weights.load(tmp_path / "base")
    ours, theirs = weights.tensors(bundle.policy), weights.tensors(again.policy)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (again.bare, again.remarks) == (False, ())


def test_a_downloaded_model_is_no_policy(downloaded, refusal):
    assert refusal(downloaded).endswith("without action tokens: give it as --base of a warm-up")


@pytest.mark.parametrize("name", ["<action_0>", "<action_77>", "<latent_end>", "<|image_pad|>"])
def test_a_missing_token(released, refusal, name):
    text = (released / "tokenizer.json").read_text()
    (released / "tokenizer.json").write_text(text.replace(f'"{name}"', '"<else>"'))
    line = refusal(released)
    assert f"{released / 'tokenizer.json'} is damaged or of another model" in line
    assert f"no token {name}" in line


def test_a_tokenizer_of_another_model(released, downloaded, refusal):
    edit_json(released / "config.json", lambda facts: facts.update(image_token_id=3))
    assert "gives <|image_pad|> the id 3" in refusal(released)


def test_an_embedding_with_too_few_rows(qwen_folder, tmp_path, refusal):
    folder = qwen_folder(tmp_path / "qwen", rows=300)
    assert "vocab_size 300 is too small for the 525 tokens" in refusal(folder, codec=LIMITS)


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        (lambda t: t.pop("value_head.mlp.4.bias"), "tensor value_head.mlp.4.bias is missing"),
        (
            lambda t: t.pop("model.language_model.norm.weight"),
            "tensor model.language_model.norm.weight is mis",
        ),
        (lambda t: t.update({"lora.a": torch.zeros(2)}), "tensor lora.a is unknown"),
        (lambda t: t.update({EMBEDDING: torch.zeros(640, 31)}), "is [640, 31], not [640, 32]"),
        (lambda t: t.update({EMBEDDING: t[EMBEDDING].to(torch.int8)}), "is quantised (torch.int8)"),
        (lambda t: t.update({HEAD: t[EMBEDDING] + 1}), "is not the embedding that config.json ties it to"),
    ],
)
def test_tensors_that_do_not_fit(released, refusal, edit, line):
    change(released, edit)
    found = refusal(released)
    assert line in found
    assert str(released / "model.safetensors") in found


def test_a_tied_head_that_is_stored_all_the_same(released, robot):
    change(released, lambda found: found.update({HEAD: found[EMBEDDING].clone()}))
    policy = weights.load(released, robot=robot()).policy
    assert HEAD not in weights.tensors(policy)


def test_a_head_that_is_not_stored_is_tied(qwen_folder, tmp_path, robot):
    folder = qwen_folder(tmp_path / "released", ours=True, tied=False)
    change(folder, lambda found: found.pop(HEAD))
    policy = weights.load(folder, robot=robot()).policy
    assert policy.backbone.head is policy.backbone.net.model.language_model.embed_tokens.weight


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        (lambda facts: facts.update(model_type="qwen2_vl"), "describes a 'qwen2_vl', not a qwen3_vl"),
        (lambda facts: facts.pop("model_type"), "is damaged"),
        (lambda facts: facts["text_config"].update(hidden_size="wide"), "is damaged"),
        (lambda facts: facts["vision_config"].update(spatial_merge_size=4), "spatial_merge_size must be 2"),
        (lambda facts: facts.update(text_config=7), "is damaged"),
    ],
)
def test_another_configuration(released, refusal, edit, line):
    edit_json(released / "config.json", edit)
    assert line in refusal(released)


@pytest.mark.parametrize(
    "edit",
    [
        lambda action: action.pop("mask"),
        lambda action: action.update(q01=[0.0]),
        lambda action: action.update(q99=["a", 1, 1, 1]),
        lambda action: action.update(q99=[float("nan"), 1, 1, 1]),
    ],
)
def test_damaged_statistics(released, refusal, edit):
    path = released / "dataset_statistics.json"
    edit_json(path, lambda facts: edit(facts["toy_suite"]["action"]))
    assert refusal(released).startswith(f"{path} is damaged")


def test_statistics_of_another_robot(released, refusal, robot):
    path = released / "dataset_statistics.json"
    edit_json(path, lambda facts: [row.pop() for row in facts["toy_suite"]["action"].values()])
    assert "is not about the 4 dimensions of toy" in refusal(released)
    assert weights.load(released, robot=robot(), codec=LIMITS).codec == LIMITS


def test_a_policy_needs_statistics(released, refusal):
    (released / "dataset_statistics.json").unlink()
    assert "statistics.json is missing" in refusal(released)


@pytest.mark.parametrize("tied", [True, False])
def test_the_backbone_in_bf16(qwen_folder, tmp_path, robot, observations, noise, tied):
    """Half the memory; log-probabilities and the value stay fp32 (5.7); one pass agrees with the cache."""
    folder = qwen_folder(tmp_path / "released", ours=True, tied=tied)
    bundle = weights.load(folder, robot=robot(), policy=SMALL, dtype=torch.bfloat16)
    policy = bundle.policy
    assert {p.dtype for p in policy.backbone.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in policy.value_head.parameters()} == {torch.float32}
    prompt = bundle.prompts.build(observations(3))
    drawn = policy.decide(prompt, noise(bundle, range(3)))
    terms = policy.terms(prompt, drawn.thought, drawn.tokens)
    for field in ("action_logp", "stop_logp", "latent", "value"):
        ours, theirs = getattr(terms, field), getattr(drawn.terms, field)
        assert ours.dtype == theirs.dtype == torch.float32
        assert torch.allclose(ours, theirs, atol=0.05, rtol=0.02)


def test_hugging_face_reads_what_we_write(released, robot, tmp_path):
    """Both ways: `from_pretrained` finds every weight, and the tokenizer gives the same ids."""
    bundle = weights.load(released, robot=robot())
    folder = tmp_path / "ours"
    folder.mkdir()
    weights.write(bundle, folder, torch.bfloat16, own=False, shard=60_000)
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 2
    assert not (folder / "lastr1.json").exists()
    net, told = Qwen3VLForConditionalGeneration.from_pretrained(
        folder, output_loading_info=True, dtype="auto"
    )
    assert not told["missing_keys"]
    assert {key.split(".")[0] for key in told["unexpected_keys"]} == {"value_head"}
    state = net.state_dict()
    for name, tensor in weights.tensors(bundle.policy).items():
        if not name.startswith("value_head"):
            assert state[name].dtype == torch.bfloat16
            assert torch.equal(state[name].float(), tensor), name
    text = "<|im_start|>user\npush it<action_3><latent_end>"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = bundle.prompts.tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids
    assert (tokenizer.pad_token, len(tokenizer)) == ("<|endoftext|>", 525)
