"""Thinking with a cache: which slots go through the language model together, and when a thought is over.

Axes: B decisions, b those still thinking, K stop candidates, G latents per group, L = K*G latents, N action
slots, D width, Q slots of one call, P padded prompt.

All schedules make the same decision (ALGORITHM.md 2.8); they differ in the calls of the language model:

    plain        1 + K*(G+1) + 1   every slot by itself, as the release does: the reference
    fused        1 + K*G + 1       a group's stop token goes along with its last latent
    static       1 + K*G + 1       fused with a cache of fixed length: no shape depends on what is thought
    speculative  1 + G*groups      the action slots go along too, as if the thought ended with this group

Where leaving early is exact: at evaluation by the `first` rule.  There a candidate that reaches the threshold
ends the thought whatever would have followed, and nothing that counts looks at what follows.  Everywhere else
all K groups have to be computed: a sampled stop is one draw from a categorical over all K candidates, and the
draw needs all K logits, as does its log-probability; `max` and `mode` take the largest of K.  There, and with
more rows than pay for it, `speculative` runs as `fused`, which saves K calls of `plain`.  Without a thought
(K = 0) nothing is waited for: one call in all.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lastr1.model.backbone import Backbone, Embedded, fixed_cache, new_cache
from lastr1.model.layout import Layout, attention_mask, sequence_positions


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What shares a call of the language model."""

    apart: bool = False
    """the stop token waits for the group's last latent"""
    guess: bool = False
    """the action slots go along with every group that may be the last"""
    fixed: bool = False
    """keys of slots still to come are there from the start, masked"""


SCHEDULES = {
    "plain": Schedule(apart=True),
    "fused": Schedule(),
    "static": Schedule(fixed=True),
    "speculative": Schedule(guess=True),
}
"""by the name of the knob `policy.schedule`"""

FEW = 8
"""rows up to which a guess of the actions pays: the longest thought of a batch sets the number of calls,
and all rows still thinking pay for every guess (benchmarks/decide.py)"""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How one batch chooses: with its dice, or greedily."""

    latent: Callable[[Float[Tensor, "b D"], int], Float[Tensor, "b D"]]
    """what is fed as latent i, given its mean"""
    score: Callable[[Float[Tensor, "*any D"]], Float[Tensor, "*any"]]
    """what the stop rule compares, read off a stop state"""
    enough: float
    """a score that ends the thought whatever would follow; inf: all candidates have to be seen"""
    groups: Callable[[Float[Tensor, "B K"]], Int[Tensor, "B"]]
    """1..K, from the scores of all candidates (-inf: never reached)"""
    tokens: Callable[[Float[Tensor, "B N 256"]], Int[Tensor, "B N"]]
    """action bins, from their logits"""


@dataclass(frozen=True, kw_only=True)
class Trail:
    """What a batch of thoughts leaves for the heads to read; 0 in groups that were never reached."""

    mean: Float[Tensor, "B L D"]
    latent: Float[Tensor, "B L D"]
    """as fed"""
    stop_state: Float[Tensor, "B K D"]
    value_states: Float[Tensor, "B _ D"]
    """at the K stop tokens; K = 0: at the opening token"""
    action_state: Float[Tensor, "B N D"]
    groups: Int[Tensor, "B"]
    whole: Bool[Tensor, "B"]
    """all K candidates were computed"""


class Thinking:
    """A batch of prompts that is read, thought about and acted on; used once."""

    def __init__(
        self,
        backbone: Backbone,
        layout: Layout,
        seen: Embedded,
        *,
        opening: Float[Tensor, "B 1 D"],
        stop: Float[Tensor, "1 1 D"],
        schedule: Schedule,
        rules: Rules,
        most: int,
    ) -> None:
        """`most`: groups that are computed; a thought ends with the last of them if it has not before."""
        self.backbone, self.layout, self.seen, self.rules = backbone, layout, seen, rules
        self.opening, self.stop, self.schedule, self.most = opening, stop, schedule, most
        # Room for a whole thought is of no use to one that is cut.
        self.fixed = schedule.fixed and most == layout.groups
        self.rows = torch.arange(len(opening), device=opening.device)
        """the b rows still thinking"""
        self.index = torch.arange(layout.length, device=opening.device)
        self.positions = sequence_positions(layout, seen.positions, seen.free)
        # No group is dead yet: those after the present one are not in the cache.
        self.mask = attention_mask(layout, seen.mask, torch.full_like(self.rows, layout.groups))
        self.cache = fixed_cache(backbone, layout.length) if self.fixed else new_cache()
        few = len(opening) <= FEW and rules.enough < math.inf
        self.guess = schedule.guess and (few or layout.groups == 0)
        self.guessed = layout.actions if self.guess else 0
        """action slots that go along with the last call of a group"""
        stops = max(1, layout.groups)
        self.mean, self.latent = (self._empty(layout.groups * layout.group) for _ in range(2))
        self.stop_state, self.value_states = self._empty(layout.groups), self._empty(stops)
        self.guesses = self._empty(stops, self.guessed)
        self.scores = torch.full((len(opening), layout.groups), -math.inf, device=opening.device)

    def run(self) -> Trail:
        """Read, think, stop, act."""
        last = self._read()
        for g in range(self.most):
            last = self._think(g, last)
            if self.guess:
                going = self._going(g)
                if len(going) == 0 or g + 1 == self.most:
                    break
                last = self._go_on(going, last)
        if not self.guess:
            self.scores[:, : self.most] = self.rules.score(self.stop_state[:, : self.most])
        groups = self.rules.groups(self.scores) if self.layout.groups else torch.zeros_like(self.rows)
        return Trail(
            mean=self.mean,
            latent=self.latent,
            stop_state=self.stop_state,
            value_states=self.value_states,
            action_state=self._act(groups),
            groups=groups,
            whole=(self.scores > -math.inf).all(-1),
        )

    def _read(self) -> Float[Tensor, "B D"]:
        """The prompt and the opening token, whose state predicts the first latent; K = 0: the actions too."""
        actions = self.guessed if self.layout.groups == 0 else 0
        hidden = self._feed([self.seen.embeds, self.opening], 0, actions=actions)
        last = hidden[:, self.layout.prompt]
        self.value_states[:, 0] = last
        self.guesses[:, 0, :actions] = hidden[:, self.layout.body :]
        return last

    def _think(self, g: int, last: Float[Tensor, "b D"]) -> Float[Tensor, "b D"]:
        """Group g; gives the state of its stop token, which predicts the next latent."""
        slots, rows = self.layout.latent_slots(), self.rows
        first, final = g * self.layout.group, (g + 1) * self.layout.group - 1
        for i in range(first, final + 1):
            z = self.rules.latent(last, i)
            self.mean[rows, i], self.latent[rows, i] = last, z
            if i < final:
                last = self._feed([z[:, None]], slots[i])[:, 0]
        stop = self.stop.expand(len(rows), -1, -1)
        if self.schedule.apart:
            parts = [self._feed([z[:, None]], slots[final]), self._feed([stop], slots[final] + 1)]
            hidden = torch.cat(parts, dim=1)
        else:
            hidden = self._feed([z[:, None], stop], slots[final], actions=self.guessed)
        self.stop_state[rows, g], self.value_states[rows, g] = hidden[:, 0], hidden[:, 1]
        self.guesses[rows, g] = hidden[:, 2:]
        return hidden[:, 1]

    def _going(self, g: int) -> Int[Tensor, "some"]:
        """Which of the rows still thinking go on after group g."""
        self.scores[self.rows, g] = self.rules.score(self.stop_state[self.rows, g])
        return (self.scores[self.rows, g] < self.rules.enough).nonzero()[:, 0]

    def _go_on(self, going: Int[Tensor, "some"], last: Float[Tensor, "b D"]) -> Float[Tensor, "some D"]:
        """Forget the guessed actions, and the rows that are done."""
        self.cache.crop(-self.guessed)
        if len(going) == len(self.rows):
            return last
        self.cache.batch_select_indices(going)
        self.rows, self.mask, self.positions = self.rows[going], self.mask[going], self.positions[:, going]
        return last[going]

    def _act(self, groups: Int[Tensor, "B"]) -> Float[Tensor, "B N D"]:
        """States of the action slots after `groups` groups."""
        if self.guess:
            return self.guesses[torch.arange(len(groups), device=groups.device), (groups - 1).clamp(min=0)]
        self.mask = attention_mask(self.layout, self.seen.mask, groups)
        computed = self.layout.body + self.most * (self.layout.group + 1)
        return self._feed([], computed, actions=self.layout.actions)

    def _feed(self, inputs: list[Float[Tensor, "b _ D"]], start: int, *, actions: int = 0) -> Tensor:
        """States [b, Q, D] of the slots from `start` on, into which `inputs` go, and of some action slots."""
        empty = self.opening.new_zeros(len(self.rows), actions, self.backbone.width)
        embeds = torch.cat([*inputs, empty], dim=1)
        end = start + embeds.shape[1] - actions
        action = self.layout.action
        slots = torch.cat([self.index[start:end], self.index[action : action + actions]])
        keys = self.index if self.fixed else torch.cat([self.index[:start], slots])
        hidden: Tensor = self.backbone(
            embeds,
            self.positions[:, :, slots],
            self.mask[:, :, slots][..., keys],
            cache=self.cache,
            seen=self.seen if start == 0 else None,
        )
        return hidden

    def _empty(self, *shape: int) -> Tensor:
        return self.opening.new_zeros(len(self.rows), *shape, self.backbone.width)
