import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lastr1.algo.masked import full_precision, masked_mean, whiten

t = torch.tensor


def test_masked_mean_ignores_what_is_masked_even_nan():
    # (1 + 3) / 2 = 2
    mask = t([True, False, True, False])
    assert masked_mean(t([1.0, 100.0, 3.0, float("nan")]), mask) == 2
    assert masked_mean(t([1.0, 2.0]), t([False, False])) == 0


def test_whiten_by_hand():
    # valid 1, 2, 6, 7: mean 4, squared deviations 9 + 4 + 4 + 9 = 26, unbiased variance 26 / 3, root 2.943920
    x = t([[1.0, 2.0, 1e6], [6.0, 7.0, float("nan")]])
    valid = t([[True, True, False], [True, True, False]])
    expected = t([[-3.0, -2.0, 0.0], [2.0, 3.0, 0.0]]) / 2.9439203
    torch.testing.assert_close(whiten(x, valid), expected, atol=1e-6, rtol=0)


def test_whiten_of_one_or_none_is_zero():
    x, none = t([[5.0, 7.0]]), t([[False, False]])
    assert whiten(x, none).tolist() == [[0, 0]]
    assert whiten(x, t([[True, False]])).tolist() == [[0, 0]]


def test_whiten_of_equal_values_is_finite():
    assert whiten(t([[3.0, 3.0]]), t([[True, True]])).tolist() == [[0, 0]]


@settings(derandomize=True, deadline=None, max_examples=40)
@given(lengths=st.lists(st.integers(1, 6), min_size=2, max_size=5), seed=st.integers(0, 99))
def test_whitened_advantages_have_mean_0_and_unbiased_variance_1(lengths, seed):
    x = 3 + 2 * torch.randn(len(lengths), 6, generator=torch.Generator().manual_seed(seed))
    valid = torch.arange(6)[None] < t(lengths)[:, None]
    white = whiten(x, valid)
    assert white[valid].mean().abs() < 1e-5
    assert abs(white[valid].var() - 1) < 1e-4
    assert (white[~valid] == 0).all()


def test_full_precision_raises_bf16_and_keeps_float64():
    assert full_precision(t([1.0], dtype=torch.bfloat16)).dtype == torch.float32
    assert full_precision(t([1.0], dtype=torch.float64)).dtype == torch.float64
