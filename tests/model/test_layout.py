"""The index table, the mask and the positions against lists written out one by one (ALGORITHM.md 2.5 - 2.7).

Axes: B decisions, P padded prompt, K stop candidates, G latents per group, N action slots, S whole sequence.
"""

import torch
from hypothesis import given
from hypothesis import strategies as st

from lastr1.model.layout import Layout, attention_mask, prompt_positions, sequence_positions

SIZES = st.tuples(st.integers(1, 9), st.integers(0, 5), st.integers(1, 4), st.integers(0, 6))


def written_out(prompt, groups, group, actions):
    """What stands at each index, as (kind, group, number within)."""
    slots = [("prompt", -1, p) for p in range(prompt)] + [("open", -1, 0)]
    for g in range(groups):
        slots += [("latent", g, j) for j in range(group)] + [("stop", g, 0)]
    return slots + [("action", -1, n) for n in range(actions)]


def indices(slots, kind):
    return [i for i, slot in enumerate(slots) if slot[0] == kind]


@given(SIZES)
def test_index_table(sizes):
    prompt, groups, group, actions = sizes
    slots = written_out(*sizes)
    layout = Layout(prompt=prompt, groups=groups, group=group, actions=actions)
    latents, stops = indices(slots, "latent"), indices(slots, "stop")
    assert layout.length == len(slots)
    assert layout.latent_slots() == latents
    assert layout.latent_predictors() == [i - 1 for i in latents]
    assert layout.stop_states() == [i for i in latents if slots[i][2] == group - 1]
    assert layout.stop_tokens() == (stops or indices(slots, "open"))
    assert layout.body == prompt + 1
    assert layout.body_length == len(latents) + len(stops)
    assert list(range(layout.action, layout.length)) == indices(slots, "action")


def test_worked_example():
    """P = 95, K = 4, G = 2, N = 56 (ALGORITHM.md 2.5)."""
    layout = Layout(prompt=95, groups=4, group=2, actions=56)
    assert layout.latent_slots() == [96, 97, 99, 100, 102, 103, 105, 106]
    assert layout.stop_tokens() == [98, 101, 104, 107]
    assert layout.latent_predictors() == [95, 96, 98, 99, 101, 102, 104, 105]
    assert layout.stop_states() == [97, 100, 103, 106]
    assert (layout.action, layout.length) == (108, 164)


@given(SIZES, st.integers(0, 2**32 - 1))
def test_mask_is_the_rule(sizes, seed):
    """allow(q, k) of ALGORITHM.md 2.6, entry by entry, with random padding and thoughts of every length."""
    prompt, groups, group, actions = sizes
    layout = Layout(prompt=prompt, groups=groups, group=group, actions=actions)
    generator = torch.Generator().manual_seed(seed)
    padding = torch.randint(0, prompt + 1, (4,), generator=generator).tolist()
    used = torch.randint(min(groups, 1), groups + 1, (4,), generator=generator)
    on = torch.tensor([[p >= pad for p in range(prompt)] for pad in padding])
    mask = attention_mask(layout, on, used)
    slots = written_out(*sizes)
    assert mask.shape == (4, 1, len(slots), len(slots))
    assert mask.dtype == torch.bool

    def allow(b, q, k):
        if k < padding[b]:
            return q == k
        acts, acted = slots[q][0] == "action", slots[k][0] == "action"
        if acts and slots[k][1] >= int(used[b]):
            return False
        return k <= q or (acts and acted)

    every = range(len(slots))
    assert mask[:, 0].tolist() == [[[allow(b, q, k) for k in every] for q in every] for b in range(4)]
    assert mask.any(-1).all()


def grown(row, grids):
    """Positions of one unpadded row of True (image token) and False (text), counted as the text is read."""
    found, at, images, i = [], 0, list(grids), 0
    while i < len(row):
        if not row[i]:
            found.append((at, at, at))
            at, i = at + 1, i + 1
            continue
        height, width = images.pop(0)
        found += [(at, at + r, at + c) for r in range(height) for c in range(width)]
        at, i = at + max(height, width), i + height * width
    return found, at


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), max_size=3),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=4),
)
def test_prompt_positions(grids, rows):
    """Rows of (text before, between and after the images) against a count token by token."""
    written = []
    for before, between, after in rows:
        row = [False] * (before + 1)
        for height, width in grids:
            row += [True] * (height * width) + [False] * between
        written.append(row + [False] * after)
    longest = max(map(len, written))
    is_image = torch.zeros(len(rows), longest, dtype=torch.bool)
    on = torch.zeros_like(is_image)
    for b, row in enumerate(written):
        is_image[b, longest - len(row) :] = torch.tensor(row)
        on[b, longest - len(row) :] = True
    positions, free = prompt_positions(is_image, on, tuple(grids))
    for b, row in enumerate(written):
        expected, end = grown(row, grids)
        assert [tuple(p) for p in positions[:, b, longest - len(row) :].T.tolist()] == expected
        assert int(free[b]) == end


@given(SIZES, st.lists(st.integers(0, 40), min_size=1, max_size=3))
def test_everything_after_the_prompt_counts_on(sizes, free):
    """Same number on all three axes, and no word about how long the thought was."""
    prompt, groups, group, actions = sizes
    layout = Layout(prompt=prompt, groups=groups, group=group, actions=actions)
    before = torch.arange(3 * len(free) * prompt).reshape(3, len(free), prompt)
    positions = sequence_positions(layout, before, torch.tensor(free))
    assert positions.shape == (3, len(free), layout.length)
    assert (positions[:, :, :prompt] == before).all()
    for b, start in enumerate(free):
        tail = list(range(start, start + layout.length - prompt))
        assert positions[:, b, prompt:].tolist() == [tail] * 3


def test_positions_of_a_twelve_token_instruction():
    """B.6: prompt 86 tokens, P = 95, 9 pads; `<latent_start>` at 30, body 31-42, actions 43-98."""
    row = [False] * 4 + [True] * 64 + [False] * (1 + 12 + 5)
    assert len(row) == 74 + 12
    is_image = torch.tensor([[False] * 9 + row])
    on = torch.arange(95)[None] >= 9
    positions, free = prompt_positions(is_image, on, ((8, 8),))
    layout = Layout(prompt=95, groups=4, group=2, actions=56)
    whole = sequence_positions(layout, positions, free)
    assert whole[:, 0, 95].tolist() == [30, 30, 30]
    assert whole[0, 0, layout.body : layout.action].tolist() == list(range(31, 43))
    assert whole[2, 0, layout.action :].tolist() == list(range(43, 99))
    # three tokens and the vision marker stand before the image; the last image token is row 7, column 7
    assert whole[:, 0, 9 + 4].tolist() == [4, 4, 4]
    assert whole[:, 0, 9 + 4 + 63].tolist() == [4, 11, 11]
    assert whole[:, 0, 9 + 4 + 64].tolist() == [12, 12, 12]
