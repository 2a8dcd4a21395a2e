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

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self.groups = bundle.policy.config.stop_candidates
        lengths = range(min(1, self.groups), self.groups + 1)
        self._policies = {k: capped(bundle.policy, k) for k in lengths}

    def decide(self, observations: Sequence[Observation], cap: int) -> Batch:
        """One forward pass; images of any size."""
        return self._decide(self._policies[cap], observations)

    def rehearse(self, batch: int, groups: int) -> float:
        """Seconds of a decision on `batch` black pictures that thinks all of its `groups` groups."""
        policy = capped(self._policies[groups], groups)
        # A probability no stop can reach: every group is computed, in the order that live ones would be.
        policy.config = replace(policy.config, stop_threshold=2.0)
        began = time.perf_counter()
        self._decide(policy, [black(self._bundle.spec)] * batch)
        return time.perf_counter() - began

    def _decide(self, policy: LatentPolicy, observations: Sequence[Observation]) -> Batch:
        bundle = self._bundle
        prompt = bundle.prompts.build(observations, policy.device)
        decision = moved(policy.decide(prompt), CPU)
        bins = decision.tokens.reshape(len(observations), policy.config.chunk, -1).numpy()
        # Latents of groups that were never reached are 0.
        reached = (decision.thought.latent != 0).any(-1).any(0).sum()
        return Batch(
            chunks=tuple(ActionChunk(actions=actions) for actions in bundle.codec.decode(bins)),
            groups=tuple(decision.thought.groups.tolist()),
            ran=int(reached) // policy.config.latents_per_group,
        )


def capped(policy: LatentPolicy, groups: int) -> LatentPolicy:
    """The same modules and weights with fewer stop candidates: as if no more had been asked for."""
    view = copy.copy(policy)
    view.config = replace(policy.config, stop_candidates=groups)
    return view


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
    with track("how long a decision takes", len(lengths)) as bar:
        for groups in lengths:
            alone, full = (
                min(thinker.rehearse(batch, groups) for _ in range(REPEATS)) for batch in (1, largest)
            )
            costs[groups] = Cost(alone=alone, further=max(0.0, full - alone) / max(1, largest - 1))
            bar.advance(f"{groups} groups: {1000 * alone:.0f} ms alone, {1000 * full:.0f} ms for {largest}")
    return Costs(costs)
