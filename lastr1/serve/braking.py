"""Braking plans: how an arm may come to rest after a move, and whether a plan keeps a limit.

Units are moves: m and rad per control step.
Axes: S shares of a wanted move, N braking lengths, K control steps of a plan.
"""

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Verdict = NDArray[np.bool_]
SLACK = 1 + 1e-6
"""actions are f32"""


def braking_weights(bounds: Doubles) -> Doubles:
    """Weights [N, K, 2] of the granted move and of the one before it, in every move of a braking plan.

    After the moves u_-1 and u_0 a plan follows the cubic through them that is 0 in steps n and n + 1:
    u_k = (k - n) (k - n - 1) (a k + b).  It is linear in both moves; whether it keeps a limit is checked on
    its numbers, for a few lengths n at once.
    """
    speed, acceleration, jerk = bounds
    longest = int(np.ceil(2 * max(*(1.5 * speed / acceleration), *np.sqrt(6 * speed / jerk), 1.0)))
    lengths = np.unique(np.rint(np.geomspace(1, longest, 8)).astype(int))
    k = np.arange(longest + 3)
    weights = np.zeros((len(lengths), len(k), 2))
    for row, n in zip(weights, lengths, strict=True):
        shape = np.where(k < n, (k - n) * (k - n - 1), 0)
        row[:, 0] = shape * (k + 1) / (n * (n + 1))
        row[:, 1] = -shape * k / ((n + 1) * (n + 2))
    return weights


def between(low: Doubles | float, values: Doubles, high: Doubles | float) -> Verdict:
    """Whether all of the values [S, N, K, ...] of a plan lie between the two bounds, [S, N]."""
    return np.asarray(((values >= low) & (values <= high)).all(axis=(2, 3)))


def within(moves: Doubles, bounds: Doubles) -> Verdict:
    """Whether the lengths of the linear and the angular part of [S, N, K, 6] stay within the two bounds."""
    parts = moves.reshape(*moves.shape[:3], 2, 3)
    fine: Verdict = (np.einsum("...i,...i", parts, parts) <= (bounds * SLACK) ** 2).all(axis=(2, 3))
    return fine
