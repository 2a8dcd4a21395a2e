"""A policy behind the server: batches, and thoughts cut short."""

import numpy as np
import pytest
import torch

from lastr1.serve.engine import PolicyThinker, black, measured_costs


@pytest.mark.parametrize("rule", ["mode", "first"])
def test_a_batch_is_its_decisions_one_by_one(tiny, observations, rule):
    thinker, seen = PolicyThinker(tiny(eval_stop=rule)), observations(5)
    together = thinker.decide(seen, 4)
    alone = [thinker.decide([o], 4) for o in seen]
    assert together.groups == tuple(a.groups[0] for a in alone)
    for chunk, a in zip(together.chunks, alone, strict=True):
        assert np.array_equal(chunk.actions, a.chunks[0].actions)
    assert together.chunks[0].actions.shape == (3, 4)
    assert together.chunks[0].actions.dtype == np.float32


@pytest.mark.parametrize("rule", ["mode", "first"])
def test_what_the_policy_itself_decides(tiny, observations, rule):
    bundle, seen = tiny(eval_stop=rule), observations(4)
    decision = bundle.policy.decide(bundle.prompts.build(seen))
    wanted = bundle.codec.decode(decision.tokens.reshape(4, 3, 4).numpy())
    found = PolicyThinker(bundle).decide(seen, 4)
    assert np.array_equal(np.stack([c.actions for c in found.chunks]), wanted)
    assert found.groups == tuple(decision.thought.groups.tolist())


@pytest.mark.parametrize("schedule", ["plain", "fused", "static", "speculative"])
@pytest.mark.parametrize("rule", ["mode", "first"])
def test_a_cap_cuts_only_longer_thoughts(tiny, observations, rule, schedule):
    """A thought that fits is the same; a longer one ends at the cap."""
    # with random weights no stop is sure of itself: at this threshold they end here and there
    bundle, seen = tiny(eval_stop=rule, schedule=schedule, stop_threshold=0.002), observations(8)
    thinker = PolicyThinker(bundle)
    free = thinker.decide(seen, 4)
    assert len(set(free.groups)) > 1  # otherwise this shows nothing
    for cap in (1, 2, 3):
        cut = thinker.decide(seen, cap)
        assert max(cut.groups) <= cap
        assert cut.ran == min(cap, free.ran)
        for i, groups in enumerate(free.groups):
            if groups <= cap:
                assert cut.groups[i] == groups
                assert np.array_equal(cut.chunks[i].actions, free.chunks[i].actions)


def test_a_cut_thought_acts_as_one_of_that_length(tiny, observations):
    """Against one pass over the recorded latents, with the stop set to the cap."""
    bundle, seen = tiny(eval_stop="mode"), observations(4)
    prompt = bundle.prompts.build(seen)
    decision = bundle.policy.decide(prompt, most=2)
    reading = bundle.policy.read(bundle.policy.backbone.look(prompt), decision.thought)
    assert torch.equal(reading.action_logits.argmax(-1), decision.tokens)
    assert decision.thought.groups.max() <= 2


def test_what_was_computed_is_counted(tiny, observations):
    """The rule `first` ends a batch with its longest thought; a rehearsal computes all groups."""
    bundle, seen = tiny(eval_stop="first", stop_threshold=1e-9), observations(3)
    thinker = PolicyThinker(bundle)
    assert thinker.decide(seen, 4).ran == 1
    assert thinker._decide(thinker._tireless, seen, 3).ran == 3
    assert bundle.policy.config.stop_threshold == 1e-9


def test_without_thoughts(tiny, observations):
    thinker = PolicyThinker(tiny(stop_candidates=0))
    batch = thinker.decide(observations(2), 0)
    assert (batch.groups, batch.ran) == ((0, 0), 0)
    assert measured_costs(thinker, 2).cap(10.0, 2) == 0


def test_costs_are_measured(tiny):
    thinker = PolicyThinker(tiny())
    costs = measured_costs(thinker, 4)
    assert costs.cap(100.0, 4) == 4
    assert costs.cap(0.0, 4) == 1
    assert 0 < costs.seconds(1, 1) < 10


def test_black_pictures_fit(robot):
    seen = black(robot(2))
    assert list(seen.images) == ["camera0", "camera1"]
    assert seen.state.shape == (1,)
