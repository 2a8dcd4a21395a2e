"""Axes: E episodes, T decisions per episode."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lastr1.algo.gae import gae

t = torch.tensor


def rows(*values):
    return t([list(map(float, values))])


def check(result, advantage, target):
    torch.testing.assert_close(result.advantage, rows(*advantage), atol=1e-6, rtol=0)
    torch.testing.assert_close(result.target, rows(*target), atol=1e-6, rtol=0)


def gae_released(reward, value, discount, trace):
    """What the release computes: no mask, so the padding's values leak back.  Reference for tests only."""
    advantage = torch.zeros_like(value)
    for e in range(value.shape[0]):
        later, next_value = 0.0, 0.0
        for i in reversed(range(value.shape[1])):
            later = reward[e, i] + discount * next_value - value[e, i] + discount * trace * later
            next_value = value[e, i]
            advantage[e, i] = later
    return advantage


def all_of(lengths, steps):
    return torch.arange(steps)[None] < t(lengths)[:, None]


def test_terminated_by_hand():
    # v = (1, 2, 3), success at the end, gamma 0.99, gamma * lambda = 0.9405
    # d2 = 5 - 3 = 2;  d1 = 0.99 * 3 - 2 = 0.97;  d0 = 0.99 * 2 - 1 = 0.98
    # A2 = 2;  A1 = 0.97 + 0.9405 * 2 = 2.851;  A0 = 0.98 + 0.9405 * 2.851 = 3.6613655
    result = gae(rows(0, 0, 5), rows(1, 2, 3), t([0.0]), all_of([3], 3), discount=0.99, trace=0.95)
    check(result, (3.6613655, 2.851, 2), (4.6613655, 4.851, 5))


def test_truncated_by_hand():
    # as above without success, V(last observation) = 4: d2 = 0.99 * 4 - 3 = 0.96
    # A1 = 0.97 + 0.9405 * 0.96 = 1.87288;  A0 = 0.98 + 0.9405 * 1.87288 = 2.74144364
    result = gae(rows(0, 0, 0), rows(1, 2, 3), t([4.0]), all_of([3], 3), discount=0.99, trace=0.95)
    check(result, (2.74144364, 1.87288, 0.96), (3.74144364, 3.87288, 3.96))


def test_early_success_is_cut_where_the_release_leaks():
    # success at decision 1 of 4, value 3 on the frozen frame
    # ours: A1 = 5 - 2 = 3;  A0 = 0.98 + 0.9405 * 3 = 3.8015
    # released: A3 = -3;  A2 = 0.99 * 3 - 3 + 0.9405 * -3 = -2.8515
    #           A1 = 5 + 0.99 * 3 - 2 + 0.9405 * -2.8515 = 3.28816425;  A0 = 0.98 + 0.9405 * A1 = 4.07251848
    reward, value = rows(0, 5, 0, 0), rows(1, 2, 3, 3)
    result = gae(reward, value, t([0.0]), all_of([2], 4), discount=0.99, trace=0.95)
    check(result, (3.8015, 3, 0, 0), (4.8015, 5, 0, 0))
    leaking = gae_released(reward, value, 0.99, 0.95)
    expected = rows(4.07251848, 3.28816425, -2.8515, -3)
    torch.testing.assert_close(leaking, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(leaking + value, rows(5.07251848, 5.28816425, 0.1485, 0), atol=1e-6, rtol=0)


def test_padding_influences_nothing_whatever_it_holds():
    valid = all_of([2, 3], 4)
    clean = torch.where(valid, 1.5, 0.0)
    dirty = torch.where(valid, 1.5, float("nan"))
    last = t([4.0, 0.0])
    a = gae(clean, clean, last, valid, discount=0.9, trace=0.8)
    b = gae(dirty, dirty, last, valid, discount=0.9, trace=0.8)
    torch.testing.assert_close(a.advantage, b.advantage, atol=0, rtol=0)
    torch.testing.assert_close(a.target, b.target, atol=0, rtol=0)
    assert (b.advantage[~valid] == 0).all()
    assert (b.target[~valid] == 0).all()


def test_advantages_are_constants():
    value = rows(1, 2).requires_grad_()
    result = gae(rows(0, 5), value, t([0.0]), all_of([2], 2), discount=0.9, trace=0.8)
    assert not result.advantage.requires_grad
    assert not result.target.requires_grad


episodes = st.tuples(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 99))


def random_rollout(case):
    lengths, seed = case
    g = torch.Generator().manual_seed(seed)
    shape = (len(lengths), 6)
    reward, value = (torch.randn(shape, generator=g, dtype=torch.float64) for _ in range(2))
    last = torch.randn(len(lengths), generator=g, dtype=torch.float64)
    return reward, value, last, all_of(lengths, 6), lengths


@settings(derandomize=True, deadline=None, max_examples=40)
@given(episodes)
def test_trace_1_is_monte_carlo_minus_value_and_trace_0_is_one_step(case):
    reward, value, last, valid, lengths = random_rollout(case)
    monte_carlo = gae(reward, value, last, valid, discount=0.9, trace=1.0).advantage
    one_step = gae(reward, value, last, valid, discount=0.9, trace=0.0).advantage
    for e, n in enumerate(lengths):
        following = torch.cat([value[e, 1:n], last[e : e + 1]])
        for i in range(n):
            discounts = 0.9 ** torch.arange(n - i, dtype=torch.float64)
            returns = (discounts * reward[e, i:n]).sum() + 0.9 ** (n - i) * last[e]
            assert abs(monte_carlo[e, i] - (returns - value[e, i])) < 1e-9
            assert abs(one_step[e, i] - (reward[e, i] + 0.9 * following[i] - value[e, i])) < 1e-9


@settings(derandomize=True, deadline=None, max_examples=30)
@given(episodes)
def test_each_episode_is_on_its_own_and_a_full_one_equals_the_release(case):
    reward, value, last, valid, lengths = random_rollout(case)
    result = gae(reward, value, last, valid, discount=0.9, trace=0.8)
    torch.testing.assert_close(result.target, torch.where(valid, result.advantage + value, 0.0))
    for e, n in enumerate(lengths):
        # a terminated episode alone, without padding, is what the release gets right
        alone = gae_released(reward[e : e + 1, :n], value[e : e + 1, :n], 0.9, 0.8)[0]
        reach = 0.72 ** torch.arange(n - 1, -1, -1, dtype=torch.float64)
        torch.testing.assert_close(result.advantage[e, :n], alone + 0.9 * last[e] * reach)
