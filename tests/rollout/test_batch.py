"""Step -> Episode -> Rollout -> Minibatch: nothing is lost, nothing is invented.

Axes: E episodes, T decisions per episode (padded at the end), B decisions.
"""

import numpy as np
import pytest
import torch

from lastr1.algo.gae import gae
from lastr1.algo.lapo import decision_weights
from lastr1.algo.masked import whiten
from lastr1.envs.base import Start
from lastr1.rollout.batch import Decisions, Episode, Minibatch, Step, make_rollout, tree_map


@pytest.fixture(scope="module")
def decided(tiny, played):
    """Twelve decisions; each knows its number by its first pixel."""
    rows = played(tiny(), 12)
    for i, row in enumerate(rows):
        row.pixels[0, 0, 0, 0] = i
    return rows


def episode(rows, *, success, after=None, task=0):
    steps = tuple(
        Step(decided=d, reward=float(success and i == len(rows) - 1), steps=3 - (i == len(rows) - 1))
        for i, d in enumerate(rows)
    )
    start = Start(task=task, seed=7)
    return Episode(start=start, steps=steps, success=success, after=after, seconds=1.0, version=4)


@pytest.fixture
def episodes(decided):
    """Lengths 3 (success), 1 (success), 5 (truncated), 2 (truncated after decision 11)."""
    return [
        episode(decided[:3], success=True),
        episode(decided[3:4], success=True),
        episode(decided[4:9], success=False, after=decided[9]),
        episode(decided[9:11], success=False, after=decided[11]),
    ]


def numbers(decisions):
    return decisions.pixels[:, 0, 0, 0, 0].tolist()


def test_rollout(episodes):
    rollout = make_rollout(episodes)
    t, f = True, False
    assert rollout.valid.tolist() == [[t, t, t, f, f], [t, f, f, f, f], [t] * 5, [t, t, f, f, f]]
    assert rollout.reward.tolist() == [[0, 0, 1, 0, 0], [1, 0, 0, 0, 0], [0] * 5, [0] * 5]
    assert rollout.truncated.tolist() == [f, f, t, t]
    assert numbers(rollout.decisions) == [*range(9), 9, 10]
    assert numbers(rollout.after) == [9, 11]
    assert len(rollout.decisions) == 11
    assert rollout.episodes == tuple(episodes)


def test_without_truncation_there_is_nothing_after(episodes):
    rollout = make_rollout(episodes[:2])
    assert rollout.after is None
    assert rollout.truncated.tolist() == [False, False]


def test_pad_is_the_inverse_of_taking_the_valid_ones(episodes):
    rollout = make_rollout(episodes)
    flat = torch.arange(1.0, 12.0)
    grid = rollout.pad(flat)
    assert torch.equal(grid[rollout.valid], flat)
    assert (grid[~rollout.valid] == 0).all()
    assert grid[2].tolist() == [5, 6, 7, 8, 9]


def test_stacked_rows_are_the_decisions(decided):
    stacked = Decisions.stack(decided)
    for i, row in enumerate(decided):
        assert stacked.instructions[i] == row.instruction
        assert np.array_equal(stacked.pixels[i], row.pixels)
        assert torch.equal(stacked.thought.latent[i], row.thought.latent)
        assert int(stacked.thought.groups[i]) == int(row.thought.groups)
        assert torch.equal(stacked.tokens[i], row.tokens)
        assert torch.equal(stacked.terms.latent_used[i], row.terms.latent_used)
        assert float(stacked.terms.value[i]) == float(row.terms.value)


def test_selection_takes_everything_along(decided):
    stacked, index = Decisions.stack(decided), torch.tensor([7, 2, 2, 11])
    some = stacked.rows(index)
    assert numbers(some) == index.tolist()
    again = Decisions.stack([decided[i] for i in index.tolist()])
    assert some.instructions == again.instructions
    for name in ("action_logp", "stop_logp", "latent", "latent_used", "value"):
        assert torch.equal(getattr(some.terms, name), getattr(again.terms, name)), name
    assert torch.equal(some.thought.latent, again.thought.latent)
    assert torch.equal(some.tokens, again.tokens)


def test_minibatch_selection(decided):
    stacked = Decisions.stack(decided)
    count = torch.arange(12.0)
    batch = Minibatch(
        decisions=stacked, old=stacked.terms, advantage=count, target=2 * count, weight=3 * count
    )
    index = torch.tensor([5, 1])
    some = batch.rows(index)
    assert numbers(some.decisions) == [5, 1]
    assert (some.advantage.tolist(), some.target.tolist(), some.weight.tolist()) == ([5, 1], [10, 2], [15, 3])
    assert torch.equal(some.old.value, stacked.terms.value[index])
    assert torch.equal(some.old.latent, stacked.terms.latent[index])


def test_tree_map_walks_into_dataclasses(decided):
    doubled = tree_map(lambda a, b: a + b, decided[0].thought, decided[1].thought)
    assert torch.equal(doubled.latent, decided[0].thought.latent + decided[1].thought.latent)
    assert int(doubled.groups) == int(decided[0].thought.groups + decided[1].thought.groups)


def test_figures_of_an_episode(episodes):
    assert episodes[2].control_steps == 4 * 3 + 2
    assert episodes[1].groups == float(episodes[1].steps[0].decided.thought.groups)


def advantages(rollout, value):
    last = torch.zeros(len(rollout.episodes))
    last[rollout.truncated] = 4.0
    return gae(rollout.reward * 5, rollout.pad(value), last, rollout.valid, discount=0.99, trace=0.95)


def test_a_longer_neighbour_changes_no_advantage(episodes):
    """Padding: the short episodes alone, and beside one of five decisions."""
    value = torch.linspace(0.5, 3, 11)
    wide, narrow = make_rollout(episodes), make_rollout(episodes[:2])
    a, b = advantages(wide, value), advantages(narrow, value[:4])
    assert (wide.valid.shape, narrow.valid.shape) == ((4, 5), (2, 3))
    for name in ("advantage", "target"):
        assert torch.equal(getattr(a, name)[:2][wide.valid[:2]], getattr(b, name)[narrow.valid])
        assert (getattr(a, name)[~wide.valid] == 0).all()
    assert torch.equal(whiten(a.advantage, wide.valid)[~wide.valid], torch.zeros(9))
    for average in ("decision", "episode"):
        weight = decision_weights(wide.valid, average)
        assert float(weight.sum()) == pytest.approx(1, abs=1e-6)
        assert (weight[~wide.valid] == 0).all()


def test_the_order_of_episodes_changes_no_advantage(episodes):
    value = torch.linspace(0.5, 3, 11)
    order = [2, 0, 3, 1]
    spans = [slice(0, 3), slice(3, 4), slice(4, 9), slice(9, 11)]
    mixed = make_rollout([episodes[i] for i in order])
    a = advantages(make_rollout(episodes), value).advantage
    b = advantages(mixed, torch.cat([value[spans[i]] for i in order])).advantage
    assert torch.equal(b, a[order])
    assert numbers(mixed.decisions) == [4, 5, 6, 7, 8, 0, 1, 2, 9, 10, 3]
