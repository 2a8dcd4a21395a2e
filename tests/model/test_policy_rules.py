"""What both stop rules say to one thought, noted while it is thought (ALGORITHM.md 3)."""

import pytest
import torch


def groups(bundle, prompt):
    return bundle.policy.decide(prompt).thought.groups.tolist()


@pytest.mark.parametrize("played", ["first", "mode"])
def test_noted_rules_are_what_a_policy_of_each_rule_does(tiny, observations, played):
    """Twelve thoughts of the same weights by either rule; the one that is played stays as it was."""
    by_rule = {}
    for rule in ("first", "mode"):
        bundle = tiny(eval_stop=rule, stop_threshold=0.004)
        prompt = bundle.prompts.build(observations(12))
        by_rule[rule] = groups(bundle, prompt)
    assert by_rule["first"] != by_rule["mode"]
    assert len(set(by_rule["first"])) > 1
    bundle = tiny(eval_stop=played, stop_threshold=0.004)
    bundle.policy.note_rules()
    decision = bundle.policy.decide(prompt)
    assert decision.rules.T.tolist() == [by_rule["first"], by_rule["mode"]]
    assert decision.thought.groups.tolist() == by_rule[played]


def test_noting_changes_no_action(tiny, observations):
    decisions = []
    for noted in (False, True):
        bundle = tiny(eval_stop="first", stop_threshold=0.004)
        if noted:
            bundle.policy.note_rules()
        decisions.append(bundle.policy.decide(bundle.prompts.build(observations(4))))
    plain, noted = decisions
    assert torch.equal(plain.tokens, noted.tokens)
    assert torch.equal(plain.thought.groups, noted.thought.groups)
    assert plain.rules.tolist() == [[0, 0]] * 4
    assert noted.rules.min() >= 1


def test_nothing_is_noted_of_a_sampled_or_an_action_only_decision(tiny, observations, noise):
    for knobs, sampled in (({}, True), ({"stop_candidates": 0}, False)):
        bundle = tiny(**knobs)
        bundle.policy.note_rules()
        dice = noise(bundle, range(3)) if sampled else None
        rules = bundle.policy.decide(bundle.prompts.build(observations(3)), dice).rules
        assert rules.tolist() == [[0, 0]] * 3


def test_one_candidate_needs_no_second_look(tiny, observations):
    bundle = tiny(stop_candidates=1, latents_per_group=8, eval_stop="first")
    bundle.policy.note_rules()
    assert bundle.policy.decide(bundle.prompts.build(observations(3))).rules.tolist() == [[1, 1]] * 3
