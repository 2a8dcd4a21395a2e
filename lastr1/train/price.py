"""The price of a latent during a reinforcement run.

Axes: B decisions.
"""

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from lastr1.algo.budget import charged, next_price
from lastr1.config import ThinkingConfig
from lastr1.rollout.batch import Rollout


class LatentPrice:
    """What a latent costs, in successes; with a target, the multiplier that holds thoughts to it."""

    def __init__(self, config: ThinkingConfig) -> None:
        self.config, self.value = config, config.price

    def charge(self, rollout: Rollout) -> Rollout:
        """The same episodes, every decision charged for its thought."""
        latents = rollout.pad(_latents(rollout))
        return replace(rollout, reward=charged(rollout.reward, latents, self.value))

    def settle(self, rollout: Rollout) -> dict[str, float]:
        """Set the price of the next iteration; what latents cost in this one, if they may cost anything."""
        paid, config = self.value, self.config
        if config.target is not None:
            self.value = next_price(paid, float(_latents(rollout).mean()), config.target, config.rate)
        return {"latent_price": paid} if config.budgeted else {}


def _latents(rollout: Rollout) -> Float[Tensor, "B"]:
    return rollout.decisions.terms.latent_used.sum(-1).float()
