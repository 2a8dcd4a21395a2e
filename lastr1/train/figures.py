"""What the rollout of an iteration says, in numbers.

Axes: E episodes, T decisions per episode, B decisions, L latent slots, D latent width.
"""

import numpy as np
from jaxtyping import Float
from torch import Tensor

from lastr1.rollout.batch import Rollout


def rollout_figures(rollout: Rollout) -> dict[str, float]:
    """What the episodes of one iteration say."""
    episodes = rollout.episodes
    steps = sum(e.control_steps for e in episodes)
    groups = rollout.decisions.thought.groups.float()
    tasks = sorted({e.start.task for e in episodes})
    lost = sum(e.lost for e in episodes)
    return {
        "success": float(np.mean([e.success for e in episodes])),
        "episodes": len(episodes),
        "decisions": len(rollout.decisions),
        "control_steps": steps,
        "mean_groups": float(groups.mean()),
        "lost_share": lost / (lost + len(episodes)),
        **latent_figures(rollout.decisions.terms.latent),
        **{
            f"success_task_{task}": float(np.mean([e.success for e in episodes if e.start.task == task]))
            for task in tasks
        },
    }


def evaluation_figures(rollout: Rollout) -> dict[str, float]:
    """Of greedy episodes: `evaluated_success` (and of each task), `evaluated_episodes`, ..."""
    found = rollout_figures(rollout)
    names = [name for name in found if name.startswith("success")]
    return {f"evaluated_{name}": found[name] for name in (*names, "episodes", "mean_groups")}


def latent_figures(latent: Float[Tensor, "B L D"]) -> dict[str, float]:
    """How much thoughts differ in their first predicted latent, which every thought has.

    `latent_spread`: variance over decisions as a share of the mean square.  `latent_rank`: effective rank of
    the covariance C, tr(C)^2 / tr(C^2), over 1000 decisions at most.  Without a thought there are none.
    """
    if latent.shape[1] == 0:
        return {}
    rows = latent[:: 1 + len(latent) // 1000, 0].float()
    centred = rows - rows.mean(0)
    gram = centred @ centred.T  # the eigenvalues of the covariance, whatever the width
    return {
        "latent_spread": float(centred.square().sum() / rows.square().sum().clamp(min=1e-12)),
        "latent_rank": float(gram.trace().square() / gram.square().sum().clamp(min=1e-12)),
    }


def explained_variance(value: Tensor, target: Tensor) -> float:
    """1 - Var(target - value) / Var(target): 1 is a perfect critic, 0 a constant one."""
    return float(1 - (target - value).var() / target.var().clamp(min=1e-8))
