"""How a decision is made, and that one pass re-evaluates it exactly (DESIGN.md 5, ALGORITHM.md 11: 1 - 4).

Axes: B decisions, K stop candidates, G latents per group, L = K*G, D width, N action tokens.
"""

import math

import pytest
import torch

import lastr1.model.policy as policy_module
from lastr1.algo.logprob import ConsistentStop
from lastr1.model.layout import Layout, attention_mask, sequence_positions
from lastr1.model.policy import LatentPolicy, Thought

SHAPES = [(2, 4), (1, 8), (4, 2), (8, 1), (1, 1), (2, 0)]
CLOSE = {"atol": 2e-5, "rtol": 0}


@pytest.fixture
def reading(monkeypatch):
    """What the heads read last: `score` notes it."""
    notes = []
    score = LatentPolicy.score

    def noting(self, reading, *args, **kwargs):
        notes.append(reading)
        return score(self, reading, *args, **kwargs)

    monkeypatch.setattr(LatentPolicy, "score", noting)
    return lambda: notes[-1]


def thinking(tiny, group, groups, **knobs):
    return tiny(latents_per_group=group, stop_candidates=groups, **knobs)


@pytest.mark.parametrize("sampled", [True, False])
@pytest.mark.parametrize(("group", "groups"), SHAPES)
def test_thinking_with_the_cache_is_one_pass(tiny, observations, noise, reading, group, groups, sampled):
    bundle = thinking(tiny, group, groups, latent_noise=0.3)
    policy, prompt = bundle.policy, bundle.prompts.build(observations(8))
    decision = policy.decide(prompt, noise(bundle, range(8)) if sampled else None)
    live = reading()
    again = policy.terms(prompt, decision.thought, decision.tokens)
    replay = reading()
    for name in ("mean", "stop_state", "stop_logits", "value", "action_logits"):
        torch.testing.assert_close(getattr(replay, name), getattr(live, name), **CLOSE, msg=name)
    assert len({int(n) for n in prompt.mask.sum(1)}) > 2
    if groups > 1 and sampled:
        assert len(set(decision.thought.groups.tolist())) > 1
    if sampled:
        for name in ("action_logp", "stop_logp", "latent", "value"):
            torch.testing.assert_close(getattr(again, name), getattr(decision.terms, name), atol=1e-4, rtol=0)
    assert torch.equal(again.latent_used, decision.terms.latent_used)
    assert again.latent_used.sum(1).tolist() == (group * decision.thought.groups).tolist()


def test_what_is_fed_is_what_is_stored(tiny, observations, noise, reading):
    """z = mean + sigma * eps bit for bit; without noise z = mean; the terms keep the means that count."""
    bundle = tiny(latent_noise=0.2)
    bundle.policy.calibrate(1.5)
    prompt, drawn = bundle.prompts.build(observations(4)), noise(bundle, range(4))
    fed = []
    embed = bundle.policy.backbone.forward
    bundle.policy.backbone.forward = lambda embeds, *a, **k: fed.append(embeds) or embed(embeds, *a, **k)
    decision = bundle.policy.decide(prompt, drawn)
    z, mean = decision.thought.latent, reading().mean
    torch.testing.assert_close(z - mean, 0.2 * 1.5 * drawn.latent, atol=1e-6, rtol=0)
    used = decision.terms.latent_used
    assert torch.equal(decision.terms.latent[used], mean[used])
    assert (decision.terms.latent[~used] == 0).all()
    assert (~used).any()
    assert torch.equal(torch.stack([e[:, 0] for e in fed[1:-1]], dim=1), z)
    assert (fed[-1] == 0).all()
    greedy = bundle.policy.decide(prompt)
    assert torch.equal(greedy.thought.latent, reading().mean)


def test_stop_is_recorded_with_the_probability_it_was_drawn_with(tiny, observations, noise, reading):
    """softmax over candidates of logit / 1.6; the drawn number falls into its interval."""
    bundle = tiny()
    drawn = noise(bundle, range(16))
    decision = bundle.policy.decide(bundle.prompts.build(observations(16)), drawn)
    probability = torch.softmax(reading().stop_logits.double() / 1.6, dim=-1)
    chosen = decision.thought.groups - 1
    mine = probability.gather(1, chosen[:, None])[:, 0]
    torch.testing.assert_close(decision.terms.stop_logp.double(), mine.log(), atol=1e-6, rtol=0)
    upper = probability.cumsum(1).gather(1, chosen[:, None])[:, 0]
    assert ((upper - mine <= drawn.stop + 1e-7) & (drawn.stop < upper + 1e-7)).all()
    assert len(set(chosen.tolist())) > 2


def test_actions_are_recorded_with_the_probability_they_were_drawn_with(tiny, observations, noise, reading):
    bundle = tiny()
    prompt, drawn = bundle.prompts.build(observations(4)), noise(bundle, range(4))
    decision = bundle.policy.decide(prompt, drawn)
    probability = torch.softmax(reading().action_logits.double() / 1.6, dim=-1)
    mine = probability.gather(2, decision.tokens[..., None])[..., 0]
    torch.testing.assert_close(decision.terms.action_logp.double(), mine.log().sum(1), atol=1e-4, rtol=0)
    upper = probability.cumsum(2).gather(2, decision.tokens[..., None])[..., 0]
    assert ((upper - mine <= drawn.action + 1e-7) & (drawn.action < upper + 1e-7)).all()
    greedy = bundle.policy.decide(prompt)
    logits = reading().action_logits
    assert torch.equal(greedy.tokens, logits.argmax(-1))
    best = torch.log_softmax(logits, -1).amax(-1).sum(-1)  # at evaluation the temperature is 1
    torch.testing.assert_close(greedy.terms.action_logp, best, atol=1e-4, rtol=0)


def test_released_stop_is_read_in_the_whole_vocabulary(tiny, observations, noise, reading):
    bundle = tiny(stop_likelihood="released")
    decision = bundle.policy.decide(bundle.prompts.build(observations(4)), noise(bundle, range(4)))
    logits = reading().stop_state @ bundle.policy.backbone.head.T
    here = torch.log_softmax(logits / 1.6, -1)[..., bundle.policy.tokens.latent_end]
    mine = here.gather(1, decision.thought.groups[:, None] - 1)[:, 0]
    torch.testing.assert_close(decision.terms.stop_logp, mine, **CLOSE)
    consistent = ConsistentStop(1.6).logp(reading().stop_logits, here, decision.thought.groups)
    assert (consistent - mine).abs().min() > 0.5


@pytest.mark.parametrize("rule", ["first", "max", "mode"])
def test_evaluation_stops_by_its_rule(tiny, observations, reading, rule):
    """Thresholds between the recorded probabilities, so that `first` meets early, late and no candidate."""
    prompts = observations(12)
    probe = tiny(eval_stop="mode", stop_likelihood="released")
    probe.policy.decide(probe.prompts.build(prompts))
    logits = reading().stop_logits
    logp = (logits - torch.logsumexp(reading().stop_state @ probe.policy.backbone.head.T, -1)).double()
    threshold = float(logp.detach().exp().max(1).values.median())
    bundle = tiny(eval_stop=rule, stop_threshold=threshold)
    decision = bundle.policy.decide(bundle.prompts.build(prompts))
    expected = []
    for p, row in zip(logp.tolist(), logits.tolist(), strict=True):
        reached = [g for g, x in enumerate(p) if x >= math.log(threshold)]
        best = p.index(max(p))
        expected.append(1 + {"first": [*reached, best][0], "max": best, "mode": row.index(max(row))}[rule])
    assert decision.thought.groups.tolist() == expected
    assert len(set(expected)) > 1


@torch.no_grad()
def test_a_masked_group_is_a_shorter_thought(tiny, observations, noise, reading):
    """A sequence that never had the unused groups, same positions: same actions.  Closed up: not."""
    bundle = tiny()
    policy = bundle.policy
    observed = observations(8)
    thoughts = policy.decide(bundle.prompts.build(observed), noise(bundle, range(8))).thought
    checked = 0
    for row, groups in enumerate(thoughts.groups.tolist()):
        if groups == 4:
            continue
        checked += 1
        prompt = bundle.prompts.build(observed[row : row + 1])
        thought = Thought(latent=thoughts.latent[row : row + 1], groups=thoughts.groups[row : row + 1])
        masked = policy.read(policy.backbone.look(prompt), thought)
        seen = policy.backbone.look(prompt)
        length = prompt.token_ids.shape[1]
        full = policy.layout(length, policy.action_tokens)
        short = Layout(prompt=length, groups=groups, group=2, actions=policy.action_tokens)
        kept = [i for i in range(full.length) if i < short.action or i >= full.action]
        body = torch.zeros(1, short.body_length, policy.backbone.width)
        for i, slot in enumerate(short.latent_slots()):
            body[:, slot - short.body] = thought.latent[:, i]
        for slot in short.stop_tokens():
            body[:, slot - short.body] = policy.backbone.embed(torch.tensor([policy.tokens.latent_end]))
        opening = policy.backbone.embed(torch.tensor([[policy.tokens.latent_start]]))
        empty = torch.zeros(1, policy.action_tokens, policy.backbone.width)
        embeds = torch.cat([seen.embeds, opening, body, empty], dim=1)
        mask = attention_mask(short, prompt.mask, thought.groups)
        fixed = sequence_positions(full, seen.positions, seen.free)[:, :, kept]
        closed = sequence_positions(short, seen.positions, seen.free)
        states = policy.backbone(embeds, fixed, mask, seen=seen)
        torch.testing.assert_close(
            policy.action_logits(states[:, short.action :]), masked.action_logits, **CLOSE
        )
        torch.testing.assert_close(policy.value(states[:, short.action - 1]), masked.value, **CLOSE)
        moved = policy.action_logits(policy.backbone(embeds, closed, mask, seen=seen)[:, short.action :])
        assert (moved - masked.action_logits).abs().max() > 0.02
    assert checked > 2


@torch.no_grad()
def test_the_releases_mask_corrupts_only_unused_stops(tiny, observations, noise, monkeypatch):
    """Unused groups hidden from every query (2-D) or from the actions alone (4-D), ALGORITHM.md 2.6."""
    bundle = tiny()
    policy, prompt = bundle.policy, bundle.prompts.build(observations(8))
    decision = policy.decide(prompt, noise(bundle, range(8)))
    seen, thought = policy.backbone.look(prompt), decision.thought
    ours = policy.read(seen, thought)
    rule = policy_module.attention_mask

    def hidden_from_all(layout, on, groups):
        body = torch.arange(layout.length) - layout.body
        dead = (body >= 3 * groups[:, None]) & (body < layout.body_length)
        return (rule(layout, on, groups) & ~dead[:, None, None, :]) | torch.eye(layout.length).bool()

    monkeypatch.setattr(policy_module, "attention_mask", hidden_from_all)
    released = policy.read(seen, thought)
    used = policy.used(thought.groups)
    reached = torch.arange(1, 5)[None] <= thought.groups[:, None]
    torch.testing.assert_close(released.action_logits, ours.action_logits, **CLOSE)
    torch.testing.assert_close(released.value, ours.value, **CLOSE)
    torch.testing.assert_close(released.mean[used], ours.mean[used], **CLOSE)
    torch.testing.assert_close(released.stop_state[reached], ours.stop_state[reached], **CLOSE)
    wrong = (released.stop_state - ours.stop_state).abs().amax(-1)[~reached]
    assert wrong.min() > 1e-3
    assert wrong.max() > 0.05


def test_fixed_length_has_no_stop(tiny, observations, noise):
    """K = 1: log-probability exactly 0 (ALGORITHM.md 3)."""
    bundle = tiny(stop_candidates=1, latents_per_group=4)
    decision = bundle.policy.decide(bundle.prompts.build(observations(3)), noise(bundle, range(3)))
    assert decision.thought.groups.tolist() == [1, 1, 1]
    assert decision.terms.stop_logp.tolist() == [0, 0, 0]


def test_without_a_thought(tiny, observations, noise):
    """K = 0: the stop token opens, the value is read there, nothing else is decided than actions."""
    bundle = tiny(stop_candidates=0)
    policy, prompt = bundle.policy, bundle.prompts.build(observations(3))
    decision = policy.decide(prompt, noise(bundle, range(3)))
    assert decision.thought.latent.shape == (3, 0, 64)
    assert decision.thought.groups.tolist() == [0, 0, 0]
    assert decision.terms.stop_logp.tolist() == [0, 0, 0]
    seen = policy.backbone.look(prompt)
    end = policy.backbone.embed(torch.tensor([[policy.tokens.latent_end]] * 3))
    length = prompt.token_ids.shape[1]
    layout = Layout(prompt=length, groups=0, group=2, actions=0)
    state = policy.backbone(
        torch.cat([seen.embeds, end], dim=1),
        sequence_positions(layout, seen.positions, seen.free),
        attention_mask(layout, prompt.mask, decision.thought.groups),
        seen=seen,
    )[:, -1]
    torch.testing.assert_close(policy.value(state), decision.terms.value, **CLOSE)
