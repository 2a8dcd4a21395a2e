"""A policy on disk that decides for many clients at once.

Axes: B decisions, L latent slots, G latents per group.
"""

import copy
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lastr1.model.policy import LatentPolicy
from lastr1.model.prompt import CPU
from lastr1.model.weights import Bundle
from lastr1.rollout.batch import moved
from lastr1.serve.batcher import Batch, Cost, Costs
from lastr1.spec import RobotSpec
from lastr1.train.progress import track
from lastr1.types import ActionChunk, Observation

REPEATS = 3
"""forward passes of a kind that are timed; the quickest counts (others met a busy machine)"""


class PolicyThinker:
    """A `Thinker`: greedy decisions (evaluation) of a policy, with thoughts of at most so many groups."""

    def __init__(self, bundle: Bundle, most: int | None = None) -> None:
        """`most`: groups that a thought may have at all (None: the policy's K)."""
        self._bundle = bundle
        candidates = bundle.policy.config.stop_candidates
        self.groups = candidates if most is None else min(most, candidates)
        # The same weights, and a probability that no stop can reach: every group is computed.
        self._tireless = copy.copy(bundle.policy)
        self._tireless.config = replace(bundle.policy.config, stop_threshold=2.0)

    def decide(self, observations: Sequence[Observation], cap: int) -> Batch:
        """One forward pass; images of any size."""
        return self._decide(self._bundle.policy, observations, cap)

    def rehearse(self, batch: int, groups: int) -> float:
        """Seconds of a decision on `batch` black pictures that thinks all of `groups` groups."""
        began = time.perf_counter()
        self._decide(self._tireless, [black(self._bundle.spec)] * batch, groups)
        return time.perf_counter() - began

    def _decide(self, policy: LatentPolicy, observations: Sequence[Observation], cap: int) -> Batch:
        bundle = self._bundle
        prompt = bundle.prompts.build(observations, policy.device)
        decision = moved(policy.decide(prompt, most=cap), CPU)
        bins = decision.tokens.reshape(len(observations), policy.config.chunk, -1).numpy()
        # Latents of groups that were never reached are 0.
        reached = (decision.thought.latent != 0).any(-1).any(0).sum()
        return Batch(
            chunks=tuple(ActionChunk(actions=actions) for actions in bundle.codec.decode(bins)),
            groups=tuple(decision.thought.groups.tolist()),
            ran=int(reached) // policy.config.latents_per_group,
        )


def black(spec: RobotSpec) -> Observation:
    """Something to look at when nothing is there yet."""
    return Observation(
        images={c.name: np.zeros((c.height, c.width, 3), np.uint8) for c in spec.cameras},
        state=np.zeros(len(spec.state), np.float32),
        instruction="wait",
    )


def measured_costs(thinker: PolicyThinker, largest: int) -> Costs:
    """Time forward passes of every length of thought, alone and with the `largest` batch."""
    lengths = range(min(1, thinker.groups), thinker.groups + 1)
    costs = {}
    with track("serve: how long a decision takes", len(lengths)) as bar:
        for groups in lengths:
            alone, full = (
                min(thinker.rehearse(batch, groups) for _ in range(REPEATS)) for batch in (1, largest)
            )
            costs[groups] = Cost(alone=alone, further=max(0.0, full - alone) / max(1, largest - 1))
            bar.advance(f"{groups} groups: {1000 * alone:.0f} ms alone, {1000 * full:.0f} ms for {largest}")
    return Costs(costs)
