"""Where prompt, thought and action slots sit in the sequence: index arithmetic, masks, positions.

Axes: B decisions, P padded prompt, K stop candidates, G latents per group, L = K*G, N action slots, S whole
sequence.

    0 .. P-1          P               P+1 ..                                    .. S-1
    [pad][prompt]  <latent_start>  { z .. z <latent_end> } x K   { empty } x N
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Index table of one sequence (ALGORITHM.md 2.5).  K = 0 is the action-only policy: the body is empty."""

    prompt: int
    """P: padded prompt length; the opening token sits at this index"""
    groups: int
    """K"""
    group: int
    """G"""
    actions: int
    """N"""

    @property
    def body(self) -> int:
        """First index of the body."""
        return self.prompt + 1

    @property
    def body_length(self) -> int:
        """K groups of G latents and one stop token."""
        return self.groups * (self.group + 1)

    @property
    def action(self) -> int:
        """First action slot."""
        return self.body + self.body_length

    @property
    def length(self) -> int:
        """S."""
        return self.action + self.actions

    def latent_slots(self) -> list[int]:
        """Index whose *input* is latent i, i = 0..L-1."""
        return [self.body + g * (self.group + 1) + j for g in range(self.groups) for j in range(self.group)]

    def latent_predictors(self) -> list[int]:
        """Index whose *output* is the mean of latent i: always one before its slot."""
        return [slot - 1 for slot in self.latent_slots()]

    def stop_states(self) -> list[int]:
        """Index whose output scores the stop of group g: the group's last latent."""
        return [self.body + g * (self.group + 1) + self.group - 1 for g in range(self.groups)]

    def stop_tokens(self) -> list[int]:
        """Index of the stop token of group g; its output is the value state.  K = 0: the opening token."""
        return [state + 1 for state in self.stop_states()] or [self.prompt]


def attention_mask(
    layout: Layout, prompt_mask: Bool[Tensor, "B P"], groups: Int[Tensor, "B"]
) -> Bool[Tensor, "B 1 S S"]:
    """True where query (row) may attend to key (column), ALGORITHM.md 2.6.

    Causal; the action slots see each other; they do not see the groups after the stop (`groups` in 1..K, or 0
    when K = 0).  The release hides unused groups from every query, which corrupts the unused stop states.
    """
    index = torch.arange(layout.length, device=prompt_mask.device)
    is_action = index >= layout.action
    in_body = (index >= layout.body) & ~is_action
    group_of = torch.where(in_body, (index - layout.body) // (layout.group + 1), -1)
    dead = group_of[None, :] >= groups[:, None]  # [B, S] keys
    ahead = index[:, None] < index[None, :]
    allow = ~ahead | (is_action[:, None] & is_action[None, :])
    key_on = torch.ones(prompt_mask.shape[0], layout.length, dtype=torch.bool, device=prompt_mask.device)
    key_on[:, : layout.prompt] = prompt_mask
    mask = allow[None] & key_on[:, None, :] & ~(is_action[None, :, None] & dead[:, None, :])
    # A padded query sees itself: a row without any key would be NaN.
    mask |= torch.eye(layout.length, dtype=torch.bool, device=mask.device)[None] & ~key_on[:, :, None]
    return mask[:, None]


def prompt_positions(
    is_image: Bool[Tensor, "B P"], prompt_mask: Bool[Tensor, "B P"], grids: tuple[tuple[int, int], ...]
) -> tuple[Int[Tensor, "3 B P"], Int[Tensor, "B"]]:
    """Interleaved M-RoPE positions (t, h, w) of a left-padded prompt, and each row's first free position.

    `grids` are the merged (rows, columns) of each image, the same for every row (ALGORITHM.md 2.7): text
    counts on all three axes; an image at position p takes t = p, h = p + row, w = p + column and frees
    p + max(rows, columns).
    """
    rows, columns, done = _image_tables(grids, is_image.device)
    seen = is_image.cumsum(1) - is_image.long()  # image tokens before this one
    text = prompt_mask & ~is_image
    base = text.cumsum(1) - text.long() + done[seen]
    image = is_image.long()
    inside = seen.clamp(max=rows.shape[0] - 1)
    positions = torch.stack([base, base + image * rows[inside], base + image * columns[inside]])
    free = text.sum(1) + done[is_image.sum(1)]
    return torch.where(prompt_mask[None], positions, 0), free


def _image_tables(grids: tuple[tuple[int, int], ...], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    rows, columns, done = [0], [0], [0]  # one entry even without an image, so that lookups stay in range
    if grids:
        rows, columns = [], []
    for height, width in grids:
        rows += [r for r in range(height) for _ in range(width)]
        columns += [c for _ in range(height) for c in range(width)]
        done += [done[-1]] * (height * width - 1) + [done[-1] + max(height, width)]
    return tuple(torch.tensor(x, device=device) for x in (rows, columns, done))  # type: ignore[return-value]


def sequence_positions(
    layout: Layout, prompt: Int[Tensor, "3 B P"], free: Int[Tensor, "B"]
) -> Int[Tensor, "3 B S"]:
    """Positions of the whole sequence: everything after the prompt counts on, whatever the thought's length.

    A short thought leaves a hole; it is not closed up (ALGORITHM.md 2.7).
    """
    tail = free[:, None] + torch.arange(layout.length - layout.prompt, device=free.device)[None]
    return torch.cat([prompt, tail[None].expand(3, -1, -1)], dim=2)
