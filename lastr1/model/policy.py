"""LatentPolicy: think in latents, decide when to stop, act; and re-evaluate all of it in one pass.

Axes: B decisions, L latent slots, K stop candidates, D width, N action tokens, V vocabulary.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lastr1.algo.lapo import PolicyTerms
from lastr1.algo.logprob import (
    ConsistentStop,
    DeterministicLatent,
    GaussianLatent,
    LatentDistribution,
    ReleasedStop,
    StopLikelihood,
    action_logp,
    draw_actions,
    draw_stop,
    evaluation_stop,
)
from lastr1.config import PolicyConfig
from lastr1.model.backbone import Backbone, DynamicCache, Embedded, Prompt, fork_cache, new_cache
from lastr1.model.codec import BINS
from lastr1.model.heads import Reading, chosen, head_logits, value_head
from lastr1.model.layout import Layout, attention_mask, sequence_positions
from lastr1.model.noise import Noise
from lastr1.model.prompt import SpecialTokens

_STOPS: dict[str, type[ConsistentStop] | type[ReleasedStop]] = {
    "consistent": ConsistentStop,
    "released": ReleasedStop,
}


@dataclass(frozen=True, kw_only=True)
class Thought:
    """What was fed back while thinking, and when it stopped."""

    latent: Float[Tensor, "B L D"]
    """z, exactly as fed; slots after the stop are filled but do not count"""
    groups: Int[Tensor, "B"]
    """1..K (0 for the action-only policy)"""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One thought and one chunk."""

    thought: Thought
    tokens: Int[Tensor, "B N"]
    """action bins, 0..255"""
    terms: PolicyTerms
    """as drawn: sampling temperature in rollouts, 1 at evaluation"""


@dataclass(frozen=True, kw_only=True)
class Heard:
    """A prompt that has been read, with the opening token."""

    seen: Embedded
    state: Float[Tensor, "B D"]
    """at the opening token: no thought has begun"""
    cache: DynamicCache


class LatentPolicy(nn.Module):
    """A Qwen3-VL with a value head, and the rules by which it thinks (ALGORITHM.md 2-4)."""

    def __init__(
        self, backbone: Backbone, config: PolicyConfig, tokens: SpecialTokens, *, action_tokens: int
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.config = config
        self.tokens = tokens
        self.action_tokens = action_tokens
        self.value_head = value_head(backbone.width)
        stop = _STOPS[config.stop_likelihood]
        self.stop: StopLikelihood = stop(config.temperature)
        self.evaluation_stop: StopLikelihood = stop(1.0)
        self.calibrate(1.0)

    def calibrate(self, latent_rms: float) -> None:
        """Fix the scale of latent noise for a run: RMS of the latents of the policy that starts it (4.3)."""
        config = self.config
        self.latent_rms = latent_rms
        self.latent: LatentDistribution = (
            GaussianLatent(config.latent_noise * latent_rms, config.latent_ratio_norm)
            if config.latent_policy == "gaussian"
            else DeterministicLatent(config.latent_sigma)
        )

    def layout(self, prompt: int, actions: int) -> Layout:
        """Index table for a prompt padded to `prompt` tokens and `actions` action slots."""
        config = self.config
        return Layout(
            prompt=prompt, groups=config.stop_candidates, group=config.latents_per_group, actions=actions
        )

    @torch.no_grad()
    def decide(self, prompt: Prompt, noise: Noise | None = None) -> Decision:
        """Think with the cache, stop, act.  With `noise` everything is sampled; without, greedy (evaluation).

        All K groups are computed, each with G calls of the language model (fused schedule, ALGORITHM.md 2.8).
        """
        config = self.config
        batch, length = prompt.token_ids.shape
        seen = self.backbone.look(prompt)
        layout = self.layout(length, self.action_tokens)
        positions = sequence_positions(layout, seen.positions, seen.free)
        full = torch.full((batch,), config.stop_candidates, device=positions.device)
        mask = attention_mask(layout, prompt.mask, full)
        cache = new_cache()

        def run(embeds: Tensor, start: int, mask: Tensor = mask) -> Tensor:
            end = start + embeds.shape[1]
            return self.backbone(  # type: ignore[no-any-return]
                embeds,
                positions[:, :, start:end],
                mask[:, :, start:end, :end],
                cache=cache,
                seen=seen if start == 0 else None,
            )

        mean = run(torch.cat([seen.embeds, self._opening(batch)], dim=1), 0)[:, -1]
        means, fed, stop_states, value_states = [], [], [], []
        stop_token = self._stop_token(batch)
        for i, slot in enumerate(layout.latent_slots()):
            means.append(mean)
            z = self.latent.sample(mean, noise.latent[:, i].to(mean)) if noise is not None else mean
            fed.append(z)
            if slot in layout.stop_states():
                stop_state, mean = run(torch.cat([z[:, None], stop_token], dim=1), slot).unbind(1)
                stop_states.append(stop_state)
                value_states.append(mean)
            else:
                mean = run(z[:, None], slot)[:, -1]

        states = torch.stack([*stop_states, mean], dim=1)[
            :, : config.stop_candidates
        ]  # [B, K, D], also K = 0
        scores = self.stop_logits(states)
        groups = self._choose(states, scores, noise)
        acting = attention_mask(layout, prompt.mask, groups)
        empty = mean.new_zeros(batch, self.action_tokens, self.backbone.width)
        logits = self.action_logits(run(empty, layout.action, acting))
        tokens = (
            draw_actions(logits, config.temperature, noise.action) if noise is not None else logits.argmax(-1)
        )
        value_state = torch.stack(value_states or [mean], dim=1)
        reading = Reading(
            mean=torch.stack([*means, mean], dim=1)[:, : config.latents],
            stop_state=states,
            stop_logits=scores,
            value=self.value(chosen(value_state, groups)),
            action_logits=logits,
        )
        thought = Thought(latent=torch.stack([*fed, mean], dim=1)[:, : config.latents], groups=groups)
        return Decision(
            thought=thought,
            tokens=tokens,
            terms=self.score(reading, thought, tokens, sampled=noise is not None),
        )

    def hear(self, seen: Embedded) -> Heard:
        """Read the prompt and the opening token, once for several thoughts."""
        batch, length = seen.mask.shape
        layout = Layout(prompt=length, groups=0, group=1, actions=0)
        cache = new_cache()
        hidden = self.backbone(
            torch.cat([seen.embeds, self._opening(batch)], dim=1),
            sequence_positions(layout, seen.positions, seen.free),
            attention_mask(layout, seen.mask, torch.zeros(batch, dtype=torch.long, device=seen.mask.device)),
            cache=cache,
            seen=seen,
        )
        return Heard(seen=seen, state=hidden[:, -1], cache=cache)

    def terms(self, prompt: Prompt, thought: Thought, tokens: Int[Tensor, "B N"]) -> PolicyTerms:
        """The recorded decision under the present weights, in one pass (every gradient comes from here)."""
        return self.score(self.read(self.backbone.look(prompt), thought), thought, tokens)

    def read(self, seen: Embedded, thought: Thought) -> Reading:
        """One pass with `thought.latent` in the slots (every gradient of reinforcement comes from here)."""
        batch, length = seen.mask.shape
        layout = self.layout(length, self.action_tokens)
        hidden = self.backbone(
            torch.cat([seen.embeds, self._opening(batch), self._body(thought, layout)], dim=1),
            sequence_positions(layout, seen.positions, seen.free),
            attention_mask(layout, seen.mask, thought.groups),
            seen=seen,
        )
        return self._reading(hidden[:, length:], layout, thought)

    def read_on(self, heard: Heard, thought: Thought, *, act: bool) -> Reading:
        """The same after a prompt that is read already; `act=False` leaves the action slots out.

        The warm-up's two passes share their prompt: a third of the work less.
        """
        length = heard.seen.mask.shape[1]
        layout = self.layout(length, self.action_tokens if act else 0)
        hidden = self.backbone(
            self._body(thought, layout),
            sequence_positions(layout, heard.seen.positions, heard.seen.free)[:, :, layout.body :],
            attention_mask(layout, heard.seen.mask, thought.groups)[:, :, layout.body :],
            cache=fork_cache(heard.cache),
        )
        return self._reading(torch.cat([heard.state[:, None], hidden], dim=1), layout, thought)

    def _body(self, thought: Thought, layout: Layout) -> Tensor:
        """Inputs after the opening token: latents, stop tokens, empty action slots."""
        config, batch = self.config, len(thought.groups)
        latent = thought.latent.to(self.backbone.head).reshape(
            batch, config.stop_candidates, config.latents_per_group, self.backbone.width
        )
        stops = self._stop_token(batch)[:, None].expand(-1, config.stop_candidates, -1, -1)
        body = torch.cat([latent, stops], dim=2).flatten(1, 2)
        return torch.cat([body, body.new_zeros(batch, layout.actions, self.backbone.width)], dim=1)

    def _reading(self, hidden: Tensor, layout: Layout, thought: Thought) -> Reading:
        """Read the heads off the hidden states from the opening token on."""
        first = layout.prompt
        stop_state = hidden[:, [i - first for i in layout.stop_states()]]
        value_state = hidden[:, [i - first for i in layout.stop_tokens()]]
        return Reading(
            mean=hidden[:, [i - first for i in layout.latent_predictors()]].float(),
            stop_state=stop_state,
            stop_logits=self.stop_logits(stop_state),
            value=self.value(chosen(value_state, thought.groups)),
            action_logits=self.action_logits(hidden[:, layout.action - first :]),
        )

    def score(
        self, reading: Reading, thought: Thought, tokens: Int[Tensor, "B N"], *, sampled: bool = True
    ) -> PolicyTerms:
        """Log-probabilities of what was chosen; at the sampling temperature, or 1 for greedy decisions."""
        temperature = self.config.temperature if sampled else 1.0
        stop = self.stop if sampled else self.evaluation_stop
        return PolicyTerms(
            action_logp=action_logp(reading.action_logits, tokens, temperature),
            stop_logp=stop.logp(
                reading.stop_logits,
                self.vocabulary_logsumexp(reading.stop_state, temperature),
                thought.groups,
            ),
            latent=reading.mean.float(),
            latent_used=self.used(thought.groups),
            value=reading.value,
        )

    def used(self, groups: Int[Tensor, "B"]) -> Bool[Tensor, "B L"]:
        """Which latents come before the stop."""
        slot = torch.arange(self.config.latents, device=groups.device)
        return slot[None] < self.config.latents_per_group * groups[:, None]

    def stop_logits(self, state: Float[Tensor, "B K D"]) -> Float[Tensor, "B K"]:
        """Raw logits of the stop token, fp32."""
        return head_logits(state, self.backbone.head[self.tokens.latent_end][None]).squeeze(-1)

    def vocabulary_logsumexp(self, state: Float[Tensor, "B K D"], temperature: float) -> Float[Tensor, "B K"]:
        """log of the sum over the whole vocabulary of exp(logit / temperature), fp32."""
        return torch.logsumexp(head_logits(state, self.backbone.head) / temperature, dim=-1)

    def action_logits(self, hidden: Float[Tensor, "B N D"]) -> Float[Tensor, "B N 256"]:
        """Logits of the 256 action tokens, fp32."""
        first = self.tokens.action
        return head_logits(hidden, self.backbone.head[first : first + BINS])

    def value(self, state: Float[Tensor, "B D"]) -> Float[Tensor, "B"]:
        """Discounted reward expected from the value state, fp32."""
        with torch.autocast(state.device.type, enabled=False):
            value: Tensor = self.value_head(state.float()).squeeze(-1)
        return value

    def _choose(self, states: Tensor, scores: Tensor, noise: Noise | None) -> Tensor:
        config = self.config
        if config.stop_candidates == 0:
            return torch.zeros(states.shape[0], dtype=torch.long, device=states.device)
        if noise is not None:
            return draw_stop(scores, config.temperature, noise.stop)
        vocabulary = scores - self.vocabulary_logsumexp(states, 1.0)
        return evaluation_stop(config.eval_stop, scores, vocabulary, config.stop_threshold)

    def _opening(self, batch: int) -> Tensor:
        thinks = self.config.stop_candidates > 0
        return self._token(self.tokens.latent_start if thinks else self.tokens.latent_end, batch)

    def _stop_token(self, batch: int) -> Tensor:
        return self._token(self.tokens.latent_end, batch)

    def _token(self, token: int, batch: int) -> Tensor:
        ids = torch.full((batch, 1), token, device=self.backbone.head.device)
        return self.backbone.embed(ids)
