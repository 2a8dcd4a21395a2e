"""LatentPolicy: think in latents, decide when to stop, act; and re-evaluate all of it in one pass.

Axes: B decisions, L latent slots, K stop candidates, D width, N action tokens, V vocabulary.
"""

import math
from dataclasses import dataclass, replace

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
    draw_actions,
    draw_stop,
    evaluation_stop,
    token_logp,
)
from lastr1.config import PolicyConfig
from lastr1.model.backbone import Backbone, DynamicCache, Embedded, Prompt, fork_cache, new_cache
from lastr1.model.codec import BINS
from lastr1.model.decision import Decision as Decision
from lastr1.model.decision import Thought as Thought
from lastr1.model.heads import Reading, chosen, head_logits, value_head
from lastr1.model.layout import Layout, attention_mask, sequence_positions
from lastr1.model.noise import Noise
from lastr1.model.prompt import SpecialTokens
from lastr1.model.thinking import SCHEDULES, Rules, Thinking, Trail

_STOPS: dict[str, type[ConsistentStop] | type[ReleasedStop]] = {
    "consistent": ConsistentStop,
    "released": ReleasedStop,
}


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
        # The `first` rule tests this very probability, and it needs no candidate after the stop.
        self.evaluation_stop: StopLikelihood = ReleasedStop(1.0) if config.eval_stop == "first" else stop(1.0)
        self._notes_rules = False
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

    @property
    def device(self) -> torch.device:
        """Where the weights are, and where prompts, thoughts and noise have to be."""
        return self.backbone.head.device

    def layout(self, prompt: int, actions: int) -> Layout:
        """Index table for a prompt padded to `prompt` tokens and `actions` action slots."""
        config = self.config
        return Layout(
            prompt=prompt, groups=config.stop_candidates, group=config.latents_per_group, actions=actions
        )

    @torch.no_grad()
    def decide(self, prompt: Prompt, noise: Noise | None = None, *, most: int | None = None) -> Decision:
        """Think with the cache, stop, act.  With `noise` everything is sampled; without, greedy (evaluation).

        `policy.schedule` says how (`thinking.py`, ALGORITHM.md 2.8); the decision is the same.  `most` (1..K)
        cuts longer thoughts, for want of time: not to be learnt from.  Latents never reached are 0.
        """
        seen, rules = self.backbone.look(prompt), self._greedy() if noise is None else self._sampling(noise)
        trail = Thinking(
            self.backbone,
            self.layout(prompt.token_ids.shape[1], self.action_tokens),
            seen,
            opening=self._opening(len(prompt.token_ids)),
            stop=self._stop_token(1),
            schedule=SCHEDULES[self.config.schedule],
            rules=rules,
            most=self.config.stop_candidates if most is None else most,
        ).run()
        state, logits = chosen(trail.value_states, trail.groups), self.action_logits(trail.action_state)
        reading = Reading(
            mean=trail.mean,
            stop_state=trail.stop_state,
            stop_logits=self.stop_logits(trail.stop_state),
            value_state=state,
            value=self.value(state),
            action_logits=logits,
        )
        thought, tokens = Thought(latent=trail.latent, groups=trail.groups), rules.tokens(logits)
        return Decision(
            thought=thought,
            tokens=tokens,
            state=state,
            terms=self.score(reading, thought, tokens, sampled=noise is not None),
            rules=self._rules(trail, noted=noise is None and self._notes_rules),
        )

    def _sampling(self, noise: Noise) -> Rules:
        temperature = self.config.temperature
        return Rules(
            latent=lambda mean, i: self.latent.sample(mean, noise.latent[:, i].to(mean)),
            score=self.stop_logits,
            enough=math.inf,
            groups=lambda scores: draw_stop(scores, temperature, noise.stop),
            tokens=lambda logits: draw_actions(logits, temperature, noise.action),
        )

    def _greedy(self) -> Rules:
        rule, threshold = self.config.eval_stop, self.config.stop_threshold
        return Rules(
            latent=lambda mean, _: mean,
            score=self.stop_logits if rule == "mode" else self.stop_confidence,
            enough=math.log(threshold) if rule == "first" else math.inf,
            groups=lambda scores: evaluation_stop(rule, scores, scores, threshold),
            tokens=lambda logits: logits.argmax(-1),
        )

    def note_rules(self) -> None:
        """From now on compute all candidates of a greedy thought, and note what both stop rules say."""
        self._notes_rules = self.config.stop_candidates > 0
        if self.config.stop_candidates > 1 and self.config.schedule == "speculative":
            self.config = replace(self.config, schedule="fused")  # the same decisions without early exits

    def _rules(self, trail: Trail, *, noted: bool) -> Int[Tensor, "B 2"]:
        if not noted:
            return trail.groups.new_zeros(len(trail.groups), 2)
        logits, confidence = self.stop_logits(trail.stop_state), self.stop_confidence(trail.stop_state)
        threshold = self.config.stop_threshold
        said = [evaluation_stop(rule, logits, confidence, threshold) for rule in ("first", "mode")]
        return torch.where(trail.whole[:, None], torch.stack(said, dim=-1), 0)

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
        value_state = chosen(hidden[:, [i - first for i in layout.stop_tokens()]], thought.groups)
        return Reading(
            mean=hidden[:, [i - first for i in layout.latent_predictors()]].float(),
            stop_state=stop_state,
            stop_logits=self.stop_logits(stop_state),
            value_state=value_state,
            value=self.value(value_state),
            action_logits=self.action_logits(hidden[:, layout.action - first :]),
        )

    def score(
        self, reading: Reading, thought: Thought, tokens: Int[Tensor, "B N"], *, sampled: bool = True
    ) -> PolicyTerms:
        """Log-probabilities of what was chosen; at the sampling temperature, or 1 for greedy decisions."""
        temperature = self.config.temperature if sampled else 1.0
        stop = self.stop if sampled else self.evaluation_stop
        used = self.used(thought.groups)
        return PolicyTerms(
            token_logp=token_logp(reading.action_logits, tokens, temperature),
            stop_logp=stop.logp(
                reading.stop_logits,
                self._normaliser(stop, reading, thought.groups, temperature),
                thought.groups,
            ),
            latent=torch.where(used[..., None], reading.mean.float(), 0.0),
            latent_used=used,
            value=reading.value,
        )

    def used(self, groups: Int[Tensor, "B"]) -> Bool[Tensor, "B L"]:
        """Which latents come before the stop."""
        slot = torch.arange(self.config.latents, device=groups.device)
        return slot[None] < self.config.latents_per_group * groups[:, None]

    def stop_logits(self, state: Float[Tensor, "*any D"]) -> Float[Tensor, "*any"]:
        """Raw logits of the stop token, fp32."""
        return head_logits(state, self.backbone.head[self.tokens.latent_end][None]).squeeze(-1)

    def stop_confidence(self, state: Float[Tensor, "*any D"]) -> Float[Tensor, "*any"]:
        """log p of the stop token in the whole vocabulary at temperature 1."""
        return self.stop_logits(state) - self.vocabulary_logsumexp(state, 1.0)

    def vocabulary_logsumexp(
        self, state: Float[Tensor, "*any D"], temperature: float
    ) -> Float[Tensor, "*any"]:
        """log of the sum over the whole vocabulary of exp(logit / temperature), fp32."""
        return torch.logsumexp(head_logits(state, self.backbone.head) / temperature, dim=-1)

    def _normaliser(
        self, stop: StopLikelihood, reading: Reading, groups: Tensor, temperature: float
    ) -> Float[Tensor, "B K"]:
        """The whole vocabulary's logsumexp at the stop, for the likelihood that reads it there; else 0."""
        if not isinstance(stop, ReleasedStop) or self.config.stop_candidates == 0:
            return torch.zeros_like(reading.stop_logits)
        here = self.vocabulary_logsumexp(chosen(reading.stop_state, groups), temperature)
        return here[:, None].expand_as(reading.stop_logits)

    def action_logits(self, hidden: Float[Tensor, "B N D"]) -> Float[Tensor, "B N 256"]:
        """Logits of the 256 action tokens, fp32."""
        first = self.tokens.action
        return head_logits(hidden, self.backbone.head[first : first + BINS])

    def value(self, state: Float[Tensor, "B D"]) -> Float[Tensor, "B"]:
        """Discounted reward expected from the value state, fp32."""
        with torch.autocast(state.device.type, enabled=False):
            value: Tensor = self.value_head(state.float()).squeeze(-1)
        return value

    def _opening(self, batch: int) -> Tensor:
        thinks = self.config.stop_candidates > 0
        return self._token(self.tokens.latent_start if thinks else self.tokens.latent_end, batch)

    def _stop_token(self, batch: int) -> Tensor:
        return self._token(self.tokens.latent_end, batch)

    def _token(self, token: int, batch: int) -> Tensor:
        ids = torch.full((batch, 1), token, device=self.backbone.head.device)
        return self.backbone.embed(ids)
