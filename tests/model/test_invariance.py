"""What a decision must not depend on (ALGORITHM.md 11: 5 - 7).

Axes: B decisions, P padded prompt, L latent slots, K stop candidates, N action tokens.
"""

from dataclasses import replace

import pytest
import torch

from lastr1.model.policy import Noise, Thought, value_head
from lastr1.rollout.batch import tree_map

CLOSE = {"atol": 2e-5, "rtol": 0}


def padded(prompt, pads, token=0):
    """The same prompt with more left padding; `token` stands in the new places."""
    rows = prompt.token_ids.shape[0]
    return replace(
        prompt,
        token_ids=torch.cat([torch.full((rows, pads), token), prompt.token_ids], dim=1),
        mask=torch.cat([torch.zeros(rows, pads, dtype=torch.bool), prompt.mask], dim=1),
    )


def same(a, b):
    assert torch.equal(a.tokens, b.tokens)
    assert torch.equal(a.thought.groups, b.thought.groups)
    for name in ("action_logp", "stop_logp", "latent", "value"):
        torch.testing.assert_close(
            getattr(a.terms, name), getattr(b.terms, name), atol=1e-4, rtol=0, msg=name
        )


def test_padding_changes_nothing(tiny, observations, noise):
    bundle = tiny()
    prompt, drawn = bundle.prompts.build(observations(4)), noise(bundle, range(4))
    decision = bundle.policy.decide(prompt, drawn)
    same(bundle.policy.decide(padded(prompt, 7), drawn), decision)
    same(bundle.policy.decide(padded(prompt, 1, token=5), drawn), decision)


def test_padding_changes_no_gradient(tiny, observations, noise):
    bundle = tiny()
    policy, prompt = bundle.policy, bundle.prompts.build(observations(4))
    decision = policy.decide(prompt, noise(bundle, range(4)))

    def gradient(prompt):
        policy.zero_grad()
        terms = policy.terms(prompt, decision.thought, decision.tokens)
        (
            terms.action_logp + terms.stop_logp + terms.value + terms.latent.square().mean((1, 2))
        ).mean().backward()
        return {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}

    plain, wide = gradient(prompt), gradient(padded(prompt, 5))
    for name, grad in plain.items():
        torch.testing.assert_close(
            wide[name], grad, atol=1e-4 * float(grad.abs().max()) + 1e-6, rtol=0, msg=name
        )
    assert len(plain) > 40


def test_a_decision_does_not_depend_on_its_neighbours(tiny, observations, noise):
    """Alone, or beside others with longer prompts; the noise of a row follows its own seed."""
    bundle = tiny(cameras=2)
    observed = observations(5, cameras=2)
    together = bundle.policy.decide(bundle.prompts.build(observed), noise(bundle, [7, 3, 9, 1, 5]))
    lengths = bundle.prompts.build(observed).mask.sum(1)
    assert len({int(n) for n in lengths}) > 1
    for row, seed in enumerate([7, 3, 9, 1, 5]):
        alone = bundle.policy.decide(bundle.prompts.build(observed[row : row + 1]), noise(bundle, [seed]))
        same(alone, tree_map(lambda x, row=row: x[row : row + 1], together))


def test_noise_rows_follow_their_seed():
    shape = {"latents": 3, "width": 5, "actions": 7}
    together = Noise.draw([4, 11, 4], **shape)
    alone = Noise.draw([11], **shape)
    for name in ("latent", "stop", "action"):
        rows = getattr(together, name)
        assert torch.equal(rows[1:2], getattr(alone, name))
        assert torch.equal(rows[0], rows[2])
        assert not torch.equal(rows[0], rows[1])
    assert (together.latent.shape, together.stop.shape, together.action.shape) == ((3, 3, 5), (3,), (3, 7))
    many = Noise.draw(range(400), **shape)
    assert abs(float(many.latent.mean())) < 0.05
    assert abs(float(many.latent.std()) - 1) < 0.05
    for uniform in (many.stop, many.action):
        assert 0 <= float(uniform.min()) < 0.1
        assert 0.9 < float(uniform.max()) < 1


@pytest.fixture
def one_pass(tiny, observations, noise):
    """A bundle, the embedded prompt and thoughts of one group each."""
    bundle = tiny()
    prompt = bundle.prompts.build(observations(3))
    thought = bundle.policy.decide(prompt, noise(bundle, range(3))).thought
    return (
        bundle.policy,
        bundle.policy.backbone.look(prompt),
        replace(thought, groups=torch.tensor([1, 2, 1])),
    )


@torch.no_grad()
def test_action_slots_see_each_other_and_nobody_before_sees_them(one_pass):
    policy, seen, thought = one_pass
    before = policy.read(seen, thought)
    start = policy.layout(seen.mask.shape[1], policy.action_tokens).action

    def disturb(module, args):
        embeds = args[0].clone()
        embeds[:, start + 5] += 1.0
        return (embeds, *args[1:])

    policy.backbone.register_forward_pre_hook(disturb)
    after = policy.read(seen, thought)
    others = [n for n in range(policy.action_tokens) if n != 5]
    assert (after.action_logits - before.action_logits)[:, others].abs().amax(-1).min() > 1e-3
    for name in ("mean", "stop_state", "value"):
        torch.testing.assert_close(getattr(after, name), getattr(before, name), **CLOSE, msg=name)


@torch.no_grad()
def test_unused_latents_change_nothing_used(one_pass):
    policy, seen, thought = one_pass
    used = policy.used(thought.groups)
    before = policy.read(seen, thought)
    other = torch.where(used[..., None], thought.latent, thought.latent + 3.0)
    after = policy.read(seen, Thought(latent=other, groups=thought.groups))
    torch.testing.assert_close(after.action_logits, before.action_logits, **CLOSE)
    torch.testing.assert_close(after.value, before.value, **CLOSE)
    torch.testing.assert_close(after.mean[used], before.mean[used], **CLOSE)
    reached = torch.arange(1, 5)[None] <= thought.groups[:, None]
    torch.testing.assert_close(after.stop_state[reached], before.stop_state[reached], **CLOSE)
    assert (after.stop_state - before.stop_state)[~reached].abs().max() > 0.05


@torch.no_grad()
def test_used_latents_change_the_actions(one_pass):
    policy, seen, thought = one_pass
    before = policy.read(seen, thought).action_logits
    for latent, moves in ((0, [True, True, True]), (2, [False, True, False])):
        other = thought.latent.clone()
        other[:, latent] += 1.0
        after = policy.read(seen, Thought(latent=other, groups=thought.groups)).action_logits
        assert ((after - before).abs().amax((1, 2)) > 1e-3).tolist() == moves


@torch.no_grad()
def test_action_slots_are_alike_after_the_first_layer(one_pass):
    """Zero vectors, told apart by their positions from the second layer on (ALGORITHM.md 2.5)."""
    policy, seen, thought = one_pass
    states = []
    layers = policy.backbone.net.model.language_model.layers
    for layer in layers:
        layer.register_forward_hook(
            lambda _module, _args, out: states.append(out[0] if isinstance(out, tuple) else out)
        )
    policy.read(seen, thought)
    slots = [s[:, -policy.action_tokens :] for s in states]
    spread = [float((s - s[:, :1]).abs().max()) for s in slots]
    assert spread[0] < 1e-6
    assert slots[0].abs().max() > 0.1
    assert spread[1] > 1e-3


@pytest.mark.parametrize("act", [True, False])
def test_reading_on_is_reading(one_pass, act):
    """A prompt read once serves several thoughts: same states, same gradient, no trace of one in the next."""
    policy, seen, thought = one_pass
    heard = policy.hear(seen)
    other = Thought(latent=thought.latent + 1.0, groups=thought.groups)
    policy.read_on(heard, other, act=True)
    names = ("mean", "stop_state", "value", "action_logits")[: 4 if act else 3]
    whole, part = policy.read(seen, thought), policy.read_on(heard, thought, act=act)
    for name in names:
        torch.testing.assert_close(getattr(part, name), getattr(whole, name), **CLOSE, msg=name)
    assert part.action_logits.shape[1] == (policy.action_tokens if act else 0)
    pulls = [(reading.mean.sin().sum() + reading.value.sum()) for reading in (whole, part)]
    a, b = (torch.autograd.grad(pull, seen.embeds, retain_graph=True)[0] for pull in pulls)
    assert a.abs().max() > 0.1
    torch.testing.assert_close(b, a, atol=1e-4, rtol=1e-3)


def test_the_value_head_starts_near_zero():
    """Weights N(0, 0.02^2), biases 0 (ALGORITHM.md 2.10)."""
    torch.manual_seed(0)
    head = value_head(2560)
    shapes = [tuple(p.shape) for p in head.parameters()]
    assert shapes == [(512, 2560), (512,), (256, 512), (256,), (128, 256), (128,), (1, 128), (1,)]
    assert list(head.state_dict()) == [f"{i}.{p}" for i in (0, 2, 4, 6) for p in ("weight", "bias")]
    assert all((p == 0).all() for p in head.parameters() if p.dim() == 1)
    assert abs(float(head[0].weight.detach().std()) - 0.02) < 1e-3
    assert head(torch.randn(512, 2560)).detach().std() < 0.02


def test_every_camera_is_seen(tiny, observations, noise):
    """Another picture in either camera is another thought, and so is the same pair swapped."""
    bundle = tiny(cameras=2)
    observed, other = observations(2, cameras=2)
    first, second = observed.images.values()
    new = other.images["camera0"]
    pairs = [(first, second), (new, second), (first, new), (second, first)]
    variants = [replace(observed, images={"camera0": a, "camera1": b}) for a, b in pairs]
    latent = bundle.policy.decide(bundle.prompts.build(variants), noise(bundle, [0] * 4)).terms.latent
    assert (latent[1:] - latent[:1]).abs().amax((1, 2)).min() > 1e-2
