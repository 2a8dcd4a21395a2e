"""Our driving of Qwen3-VL against the library's own forward pass.  Axes: B decisions, P padded prompt."""

import inspect

import pytest
import torch

from lastr1.model.layout import Layout, attention_mask, sequence_positions

# P is kept as it is; no thought, no action slots: the prompt and one opening token
PLAIN = {"groups": 0, "group": 1, "actions": 0}


@pytest.fixture(scope="module", params=[1, 2], ids=["one camera", "two cameras"])
def case(request, tiny, observations):
    bundle = tiny(cameras=request.param)
    prompt = bundle.prompts.build(observations(3, cameras=request.param))
    return bundle, prompt


def stock_inputs(bundle, prompt):
    """The library's inputs for the same prompt: here every image has a grid of its own."""
    grid = torch.tensor([[1, *grid] for _ in prompt.token_ids for grid in prompt.grid])
    kinds = (prompt.token_ids == bundle.policy.backbone.image_token).long()
    model = bundle.policy.backbone.net.model
    extra = {}
    if "mm_token_type_ids" in inspect.signature(model.get_rope_index).parameters:  # transformers 5
        extra["mm_token_type_ids"] = kinds
    return model, {"image_grid_thw": grid, "attention_mask": prompt.mask.long(), **extra}


def test_positions_are_those_of_the_library(case):
    bundle, prompt = case
    model, inputs = stock_inputs(bundle, prompt)
    theirs, _ = model.get_rope_index(prompt.token_ids, **inputs)
    seen = bundle.policy.backbone.look(prompt)
    assert len({int(n) for n in prompt.mask.sum(1)}) > 1
    for b, on in enumerate(prompt.mask):
        assert seen.positions[:, b, on].tolist() == theirs[:, b, on].tolist()
        assert int(seen.free[b]) == int(theirs[:, b, on].max()) + 1


@torch.no_grad()
def test_hidden_states_are_those_of_the_library(case):
    """All images through the vision tower as one clip = every image alone; deepstack features included."""
    bundle, prompt = case
    model, inputs = stock_inputs(bundle, prompt)
    theirs = model(input_ids=prompt.token_ids, pixel_values=prompt.patches, **inputs).last_hidden_state
    backbone = bundle.policy.backbone
    seen = backbone.look(prompt)
    layout = Layout(prompt=prompt.token_ids.shape[1] - 1, **PLAIN)
    mask = attention_mask(layout, prompt.mask[:, :-1], torch.zeros(3, dtype=torch.long))
    ours = backbone(seen.embeds, seen.positions, mask, seen=seen)
    on = prompt.mask
    torch.testing.assert_close(ours[on], theirs[on], atol=2e-5, rtol=0)
    assert len(seen.deepstack) == 1
    blind = backbone(seen.embeds, seen.positions, mask)
    assert (blind - ours)[on].abs().max() > 0.05


@torch.no_grad()
def test_the_cache_continues_where_the_prompt_ended(case):
    from lastr1.model.backbone import new_cache

    bundle, prompt = case
    backbone = bundle.policy.backbone
    seen = backbone.look(prompt)
    tail = backbone.embed(torch.randint(0, 30, (3, 4), generator=torch.Generator().manual_seed(0)))
    embeds = torch.cat([seen.embeds, tail], dim=1)
    start = prompt.token_ids.shape[1]
    layout = Layout(prompt=start, groups=0, group=1, actions=3)
    mask = attention_mask(layout, prompt.mask, torch.zeros(3, dtype=torch.long))
    positions = sequence_positions(layout, seen.positions, seen.free)
    whole = backbone(embeds, positions, mask, seen=seen)
    cache, parts = new_cache(), []
    for first, last in ((0, start), (start, start + 1), (start + 1, start + 4)):
        parts.append(
            backbone(
                embeds[:, first:last],
                positions[:, :, first:last],
                mask[:, :, first:last, :last],
                cache=cache,
                seen=seen if first == 0 else None,
            )
        )
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=2e-5, rtol=0)
