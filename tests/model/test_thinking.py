"""Schedules of thinking: the same decision by fewer calls, nothing computed for nobody (ALGORITHM.md 2.8).

Axes: B decisions, K stop candidates, G latents per group, L = K*G, D width, N action tokens (12 here).
"""

from dataclasses import fields, replace

import pytest
import torch
from torch import nn

import lastr1.model.policy as policy_module
from lastr1.model.heads import Reading, head_logits
from lastr1.model.policy import LatentPolicy
from lastr1.model.thinking import FEW, SCHEDULES
from lastr1.rollout.batch import tree_map

CLOSE = {"atol": 1e-5, "rtol": 0}
FASTER = sorted(SCHEDULES.keys() - {"plain"})
MIXED = [2, 1, 4, 1, 3, 0, 2, 1]
"""groups; 0: no candidate reaches the threshold, and the second is the best"""


@pytest.fixture
def acting(monkeypatch):
    """`acting(policy, schedule, prompt, noise=None)`: decision, reading; rows, slots and keys of calls."""
    readings = []
    score = LatentPolicy.score

    def noting(self, reading, *args, **kwargs):
        readings.append(reading)
        return score(self, reading, *args, **kwargs)

    monkeypatch.setattr(LatentPolicy, "score", noting)

    def decide(policy, schedule, prompt, noise=None):
        calls = []
        policy.config = replace(policy.config, schedule=schedule)
        hook = policy.backbone.register_forward_pre_hook(
            lambda _, args: calls.append((*args[0].shape[:2], args[2].shape[-1]))
        )
        decision = policy.decide(prompt, noise)
        hook.remove()
        return decision, readings[-1], calls

    return decide


@pytest.fixture
def planted(tiny, observations, acting):
    """`planted(lengths, **knobs)`: a bundle whose `first` rule ends row i after lengths[i] groups; a prompt.

    The head gets a stop row of its own, by a linear system: one equation per candidate.  What would follow
    the stop is surer still.  float64, so that 1e-5 means the same whatever the size of the logits.
    """

    def make(lengths, **knobs):
        bundle = tiny(**{"eval_stop": "first", **knobs})
        policy, prompt = bundle.policy, bundle.prompts.build(observations(len(lengths)))
        net, stop = policy.backbone.net, policy.tokens.latent_end
        states = acting(policy, "plain", prompt)[1].stop_state
        with torch.no_grad():
            net.lm_head.weight = nn.Parameter(net.lm_head.weight.clone())  # no longer the embedding
            net.lm_head.weight[stop] = 0
            margin = torch.full(states.shape[:2], 9.0)
            for row, groups in enumerate(lengths):
                never = torch.tensor([-2.0, -1.0, -3.0, -2.5])
                sure = torch.tensor([-2.0] * (groups - 1) + [6.0] + [9.0] * 4)
                margin[row] = (sure if groups else never)[: margin.shape[1]]
            wanted = (policy.vocabulary_logsumexp(states, 1.0) + margin).double()
            system = states.flatten(0, 1).double(), wanted.flatten()[:, None]
            net.lm_head.weight[stop] = torch.linalg.lstsq(*system, driver="gelsd").solution[:, 0].float()
        policy.backbone.double()
        return bundle, prompt

    return make


def same(ours, theirs, reached):
    """Decision and reading; `reached` [B, K] are the groups that both have computed."""
    (decision, reading, _), (other, wanted, _) = ours, theirs
    assert torch.equal(decision.tokens, other.tokens)
    assert torch.equal(decision.thought.groups, other.thought.groups)
    group = decision.thought.latent.shape[1] // max(1, reached.shape[1])
    slots = reached.repeat_interleave(group, dim=1)
    torch.testing.assert_close(decision.thought.latent[slots], other.thought.latent[slots], **CLOSE)
    for name in [f.name for f in fields(Reading)]:
        mine, right = getattr(reading, name), getattr(wanted, name)
        if name in ("mean", "stop_state", "stop_logits"):
            where = slots if name == "mean" else reached
            mine, right = mine[where], right[where]
        torch.testing.assert_close(mine, right, **CLOSE, msg=name)
    for name in ("action_logp", "stop_logp", "latent", "latent_used", "value"):
        mine, right = getattr(decision.terms, name), getattr(other.terms, name)
        torch.testing.assert_close(mine, right, **CLOSE, msg=name)


@pytest.mark.parametrize("schedule", FASTER)
@pytest.mark.parametrize("groups", [0, 1, 2, 4])
@pytest.mark.parametrize("rule", ["sampling", "max", "mode"])
def test_the_same_decision_from_all_groups(tiny, observations, noise, acting, rule, groups, schedule):
    sampled = rule == "sampling"
    bundle = tiny(stop_candidates=groups, eval_stop="mode" if sampled else rule, latent_noise=0.3)
    bundle.policy.backbone.double()
    prompt = bundle.prompts.build(observations(8))
    dice = noise(bundle, range(8)) if sampled else None
    plain, other = (acting(bundle.policy, s, prompt, dice) for s in ("plain", schedule))
    same(other, plain, torch.ones(8, groups, dtype=torch.bool))
    if groups > 1:
        assert len(set(plain[0].thought.groups.tolist())) > 1


@pytest.mark.parametrize("schedule", FASTER)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_same_decision_from_the_groups_that_count(planted, acting, groups, schedule):
    """`first`, with thoughts of every length in one batch."""
    lengths = [min(n, groups) for n in MIXED]
    bundle, prompt = planted(lengths, stop_candidates=groups)
    plain, other = (acting(bundle.policy, s, prompt) for s in ("plain", schedule))
    assert plain[0].thought.groups.tolist() == [n or min(2, groups) for n in lengths]
    reached = torch.ones(8, groups, dtype=torch.bool)
    if schedule == "speculative":
        reached = torch.arange(groups)[None] < torch.tensor([n or groups for n in lengths])[:, None]
        assert (other[1].stop_state[~reached] == 0).all()
        assert (other[0].thought.latent[~reached.repeat_interleave(2, dim=1)] == 0).all()
    same(other, plain, reached)


@pytest.mark.parametrize(("group", "groups"), [(2, 4), (1, 8), (4, 2), (8, 1), (1, 1), (2, 0)])
def test_calls_where_everything_is_computed(tiny, observations, noise, acting, group, groups):
    """1 + K*G + 1; the release 1 + K*(G+1) + 1; one in all without a thought.  The image once."""
    bundle = tiny(latents_per_group=group, stop_candidates=groups)
    looked = []
    bundle.policy.backbone.net.model.visual.register_forward_hook(lambda *_: looked.append(1))
    prompt = bundle.prompts.build(observations(3))
    for dice in (noise(bundle, range(3)), None):
        count = {s: len(acting(bundle.policy, s, prompt, dice)[2]) for s in SCHEDULES}
        fused = 1 + groups * group + 1
        assert count == {
            "plain": 1 + groups * (group + 1) + 1,
            "fused": fused,
            "static": fused,
            "speculative": fused if groups else 1,
        }
    assert len(looked) == 2 * len(SCHEDULES)


@pytest.mark.parametrize(("groups", "calls"), [(1, 3), (2, 5), (3, 7), (4, 9)])
def test_calls_of_a_thought_that_ends_early(planted, acting, groups, calls):
    """1 + G*groups, whatever K; the release 14, always."""
    bundle, prompt = planted([groups] * 3)
    assert len(acting(bundle.policy, "speculative", prompt)[2]) == calls
    assert len(acting(bundle.policy, "plain", prompt)[2]) == 14
    assert len(acting(bundle.policy, "fused", prompt)[2]) == 10


def test_many_rows_do_not_guess(planted, acting):
    """The longest thought of a batch sets the number of calls, and all rows would pay for the guesses."""
    bundle, prompt = planted([1] * (FEW + 1))
    assert len(acting(bundle.policy, "speculative", prompt)[2]) == 10


def test_rows_that_are_done_leave_the_batch(planted, acting):
    """Every call has the rows still thinking, and their cache: prompt, opening token, body so far."""
    bundle, prompt = planted(MIXED)
    length = prompt.token_ids.shape[1]
    _, _, calls = acting(bundle.policy, "speculative", prompt)
    assert calls[0] == (8, length + 1, length + 1)
    body, n = length + 1, bundle.policy.action_tokens
    assert calls[1:] == [
        call
        for g, rows in enumerate([8, 5, 3, 2])
        for call in ((rows, 1, body + 3 * g + 1), (rows, 2 + n, body + 3 * g + 3 + n))
    ]


def test_a_batch_is_its_rows(planted, acting, observations):
    bundle, prompt = planted(MIXED)
    together, reading, _ = acting(bundle.policy, "speculative", prompt)
    for row, seen in enumerate(observations(8)):
        alone = acting(bundle.policy, "speculative", bundle.prompts.build([seen]))
        mine = tree_map(lambda x, row=row: x[row : row + 1], together)
        part = Reading(**{f.name: getattr(reading, f.name)[row : row + 1] for f in fields(Reading)})
        same((mine, part, []), alone, torch.ones(1, 4, dtype=torch.bool))
        assert len(alone[2]) == 1 + 2 * (MIXED[row] or 4)


@pytest.mark.parametrize("likelihood", ["consistent", "released"])
def test_one_pass_gives_the_terms_of_an_early_exit(planted, acting, likelihood):
    """Whatever stands in slots that were never reached: 0 here, anything there."""
    bundle, prompt = planted(MIXED, stop_likelihood=likelihood)
    policy = bundle.policy
    decision, _, _ = acting(policy, "speculative", prompt)
    with torch.no_grad():
        for filled in (decision.thought, acting(policy, "plain", prompt)[0].thought):
            reading = policy.read(policy.backbone.look(prompt), filled)
            again = policy.score(reading, filled, decision.tokens, sampled=False)
            for name in ("action_logp", "stop_logp", "latent", "latent_used", "value"):
                mine, recorded = getattr(again, name), getattr(decision.terms, name)
                torch.testing.assert_close(mine, recorded, atol=1e-4, rtol=0, msg=name)
    # it is the probability that the rule compares with the threshold
    assert decision.terms.stop_logp[torch.tensor(MIXED) > 0].exp().min() > 0.99
    assert decision.terms.stop_logp[MIXED.index(0)].exp() < 0.5


@pytest.fixture
def head(monkeypatch):
    """(states, rows of the head) of every product."""
    made = []

    def noting(state, rows):
        made.append((state.numel() // state.shape[-1], len(rows)))
        return head_logits(state, rows)

    monkeypatch.setattr(policy_module, "head_logits", noting)
    return made


def test_only_the_rows_of_the_head_that_are_needed(planted, tiny, observations, noise, acting, head):
    """The stop's row and the 256 of the actions; the whole vocabulary where a rule or likelihood reads it."""

    def whole(bundle, prompt, dice):
        head.clear()
        acting(bundle.policy, "speculative", prompt, dice)
        assert {rows for _, rows in head} <= {1, 256, len(bundle.policy.backbone.head)}
        assert [states for states, rows in head if rows == 256] == [12 * len(prompt.token_ids)]
        return [states for states, rows in head if rows == len(bundle.policy.backbone.head)]

    for knobs, sampled, greedy in (
        ({"eval_stop": "mode"}, [], []),
        ({"eval_stop": "mode", "stop_likelihood": "released"}, [4], [4]),  # at the stop
        ({"eval_stop": "max"}, [], [16]),  # all candidates
    ):
        bundle = tiny(**knobs)
        prompt = bundle.prompts.build(observations(4))
        assert whole(bundle, prompt, noise(bundle, range(4))) == sampled
        assert whole(bundle, prompt, None) == greedy
    # `first`: the rows still thinking, then the stop
    assert whole(*planted(MIXED), None) == [8, 5, 3, 2, 8]


def test_static_shapes_depend_on_nothing_that_is_thought(planted, noise, acting):
    """The same shapes for early and late stops; keys always of the whole sequence."""
    shapes = []
    for lengths in (MIXED, [1] * 8):
        bundle, prompt = planted(lengths)
        for dice in (None, noise(bundle, range(8))):
            shapes.append(acting(bundle.policy, "static", prompt, dice)[2])
    length = prompt.token_ids.shape[1]
    layout = bundle.policy.layout(length, bundle.policy.action_tokens)
    assert shapes == [[(8, n, layout.length) for n in (length + 1, *(1, 2) * 4, 12)]] * 4
