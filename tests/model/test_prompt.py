"""The chat template, its tokens and its padding (ALGORITHM.md 2.2, 2.3).  Axes: P padded prompt."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from lastr1.model.images import patchify
from lastr1.model.prompt import PromptBuilder, add_policy_tokens, special_tokens, tiny_tokenizer

TASKS = ("pick up the bowl", "push it")


@pytest.fixture
def tokenizer():
    return tiny_tokenizer(TASKS)


@pytest.fixture
def builder(tokenizer, robot):
    return lambda cameras=1, image=64: PromptBuilder(
        tokenizer, robot(cameras), image=image, crop=1.0, patch=16
    )


def pictures(count):
    return np.zeros((count, 64, 64, 3), dtype=np.uint8)


def names(builder, row):
    return [builder.tokenizer.id_to_token(i) for i in row.tolist()]


def test_template(builder):
    """One user turn: image, raw instruction, generation prompt; 64 pixels are 4 tokens."""
    prompts = builder()
    prompt = prompts.batch(["pick up the bowl"], pictures(1))
    assert names(prompts, prompt.token_ids[0]) == [
        "<|im_start|>", "user", "\n", "<|vision_start|>", *["<|image_pad|>"] * 4, "<|vision_end|>",
        "pick", "up", "the", "bowl", "<|im_end|>", "\n", "<|im_start|>", "assistant", "\n",
    ]  # fmt: skip
    assert prompt.mask.all()


def test_token_count(tokenizer, robot):
    """74 + n for one 256-pixel image and n instruction tokens."""
    prompts = PromptBuilder(tokenizer, robot(), image=256, crop=1.0, patch=16)
    prompt = prompts.batch(["pick up the bowl"], np.zeros((1, 256, 256, 3), dtype=np.uint8))
    assert prompt.token_ids.shape == (1, 74 + 4)
    assert prompt.grid == ((16, 16),)


def test_several_cameras_come_first_each_in_its_own_markers(builder):
    prompts = builder(2)
    prompt = prompts.batch(["push it"], pictures(2))
    view = ["<|vision_start|>", *["<|image_pad|>"] * 4, "<|vision_end|>"]
    assert names(prompts, prompt.token_ids[0])[3:-5] == [*view, *view, "push", "it"]
    assert prompt.grid == ((4, 4), (4, 4))


def test_left_padding(builder):
    prompts = builder()
    both = prompts.batch(list(TASKS), pictures(2))
    alone = prompts.batch([TASKS[1]], pictures(1))
    short = alone.token_ids.shape[1]
    assert both.token_ids.shape == both.mask.shape == (2, short + 2)
    assert both.mask.tolist() == [[True] * (short + 2), [False, False] + [True] * short]
    assert torch.equal(both.token_ids[1, 2:], alone.token_ids[0])
    assert names(prompts, both.token_ids[1, :2]) == ["<|endoftext|>"] * 2


@pytest.mark.parametrize("word", ["<|image_pad|>", "<|im_end|>", "<action_3>", "<latent_end>"])
def test_tokens_spelt_out_in_an_instruction_are_text(builder, word):
    """Who asks a policy server writes the instruction, but neither the template nor pictures."""
    prompts = builder()
    ids = prompts.batch(["push it", f"push {word} it"], pictures(2)).token_ids
    told = [[name for name in names(prompts, row) if name.startswith("<") and len(name) > 1] for row in ids]
    assert told[1] == [name for name in told[0] if name != "<|endoftext|>"]
    assert names(prompts, ids[1])[9:11] == ["push", "<"]


def test_unknown_words_are_spelt(builder):
    """Nothing is lost: no unknown token, and different words stay different."""
    prompts = builder()
    prompt = prompts.batch(["push zinc"], pictures(1))
    assert names(prompts, prompt.token_ids[0])[9:14] == ["push", "z", "##i", "##n", "##c"]
    assert names(prompts, prompts.batch(["Push IT!"], pictures(1)).token_ids[0])[9:12] == ["push", "it", "!"]


def test_special_tokens_by_name(tokenizer):
    found = special_tokens(tokenizer)
    assert tokenizer.id_to_token(found.action) == "<action_0>"
    assert tokenizer.id_to_token(found.action + 255) == "<action_255>"
    assert tokenizer.id_to_token(found.latent_start) == "<latent_start>"
    assert tokenizer.id_to_token(found.latent_end) == "<latent_end>"
    assert tokenizer.id_to_token(found.image) == "<|image_pad|>"
    assert tokenizer.id_to_token(found.pad) == "<|endoftext|>"


@pytest.mark.parametrize("name", ["<action_0>", "<action_77>", "<latent_end>", "<|image_pad|>"])
def test_a_missing_token_is_named(tokenizer, name):
    renamed = Tokenizer.from_str(tokenizer.to_str().replace(f'"{name}"', '"<else>"'))
    with pytest.raises(ValueError, match=rf"no token {name.replace('|', '.')}"):
        special_tokens(renamed)


def test_shuffled_actions_are_refused(tokenizer):
    text = tokenizer.to_str()
    for old, new in (("<action_3>", "<swap>"), ("<action_9>", "<action_3>"), ("<swap>", "<action_9>")):
        text = text.replace(f'"{old}"', f'"{new}"')
    with pytest.raises(ValueError, match="not contiguous and ascending"):
        special_tokens(Tokenizer.from_str(text))


def test_image_size_must_be_whole_tokens(builder):
    with pytest.raises(ValueError, match="72 must be a multiple of 32"):
        builder(image=72)


def test_observations_become_the_batch_of_their_crops(builder, observations):
    """`build` = `batch` of the crops, cameras of one decision side by side."""
    prompts, seen = builder(2), observations(3, cameras=2)
    built = prompts.build(seen)
    crops = np.stack([prompts.pixels(o.images[c]) for o in seen for c in ("camera0", "camera1")])
    assert torch.equal(built.patches, patchify(torch.from_numpy(crops), 16).flatten(0, 1))
    assert torch.equal(built.token_ids, prompts.batch([o.instruction for o in seen], crops).token_ids)
    assert len({int(n) for n in built.mask.sum(1)}) > 1


REAL = Path(os.environ.get("LASTR1_QWEN_TOKENIZER", "absent"))


def test_a_builder_travels_to_another_process(builder):
    """Its cache stays behind: what is asked before and after gives the same tokens."""
    prompts = builder()
    here = prompts.batch(["put it there"], pictures(1))
    there = pickle.loads(pickle.dumps(prompts)).batch(["put it there"], pictures(1))
    assert torch.equal(here.token_ids, there.token_ids)
    assert torch.equal(here.patches, there.patches)


@pytest.mark.skipif(not REAL.is_file(), reason="LASTR1_QWEN_TOKENIZER names no tokenizer.json of Qwen3")
def test_the_real_vocabulary():
    """Ids of section 2.2, below the 151,936 rows of the embedding; a prompt of 74 + n tokens."""
    tokenizer = Tokenizer.from_file(str(REAL))
    assert tokenizer.get_vocab_size() == 151_669
    assert add_policy_tokens(tokenizer) == range(151_669, 151_928)
    found = special_tokens(tokenizer)
    assert (found.action, found.image, found.pad) == (151_669, 151_655, 151_643)
    text = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>push it<|im_end|>\n"
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert ids == [151_644, 872, 198, 151_652, 151_655, 151_653, *ids[6:-2], 151_645, 198]
    assert len(ids) == 10
