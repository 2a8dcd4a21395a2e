"""Robot units <-> [-1, 1] <-> bins (ALGORITHM.md 2.9).  numpy only.

Axes: C control steps, A action size.  Bins are 0..255, *descending*: 0 is +1, 128 is 0, 255 is -1.
"""

from dataclasses import dataclass

import numpy as np

from lastr1.types import Array, Floats

BINS = 256
_EDGES = np.linspace(-1.0, 1.0, BINS)
_CENTRES = (_EDGES[:-1] + _EDGES[1:]) / 2


def encode(x: Array) -> Array:
    """[-1, 1] -> bins i64; values outside are clipped."""
    bins: Array = BINS - np.digitize(np.clip(x, -1.0, 1.0), _EDGES)
    return bins


def decode(bins: Array) -> Array:
    """Bins -> bin centres; bins 0 and 1 share the highest one."""
    centres: Array = _CENTRES[np.clip(BINS - 1 - bins, 0, BINS - 2)]
    return centres


@dataclass(frozen=True, kw_only=True)
class Codec:
    """Action statistics of the data the policy was taught with."""

    q01: tuple[float, ...]
    """1st percentile per action dimension, robot units"""
    q99: tuple[float, ...]
    """99th percentile"""
    mask: tuple[bool, ...]
    """True: scaled by the percentiles; False: a gripper, encoded raw (1 open, 0 closed), read by threshold"""

    def encode(self, actions: Array) -> Array:
        """Robot units [..., A] -> bins i64 [..., A]."""
        low, high, mask = self._arrays()
        scaled = 2 * (actions - low) / (high - low + 1e-8) - 1
        return encode(np.where(mask, scaled, actions))

    def decode(self, bins: Array) -> Floats:
        """Bins [..., A] -> robot units f32 [..., A]."""
        low, high, mask = self._arrays()
        x = decode(bins)
        robot = np.where(mask, 0.5 * (x + 1) * (high - low) + low, (x >= 0.5).astype(np.float64))
        return robot.astype(np.float32)

    def _arrays(self) -> tuple[Array, Array, Array]:
        return np.array(self.q01), np.array(self.q99), np.array(self.mask)
