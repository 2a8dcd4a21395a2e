"""Which action of which chunk is played in a control step.

A chunk may be asked for while its predecessor is still being played (real-time chunking, arXiv:2506.07339):
what is played while the policy thinks counts as the new chunk's beginning, and the two are blended where they
overlap.
Axes: C control steps per chunk, A action size, O overlapping control steps.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lastr1.types import Floats

Blend = Literal["none", "linear", "soft"]


class Broker:
    """Chunks in, one action per control step out; knows neither robots nor clocks."""

    def __init__(self, *, play: int, ahead: int, blend: Blend, binary: Sequence[bool]) -> None:
        """`play`, `ahead`: see `DriveConfig`; `binary` [A]: dimensions that are never blended."""
        self._play, self._ahead, self._blend = play, ahead, blend
        self._binary = np.array(binary)
        self._chunk: Floats = np.zeros((0, len(binary)), np.float32)
        self._at = 0
        self._since = 0  # actions played since the decision under way was asked for

    @property
    def empty(self) -> bool:
        """Whether nothing is left to play: the robot has to hold."""
        return self._at >= min(self._play, len(self._chunk))

    @property
    def wants(self) -> bool:
        """Whether it is time to ask for the next chunk."""
        return self._at >= min(self._play, len(self._chunk)) - self._ahead

    def asked(self) -> None:
        """The next chunk is being decided from what is seen now."""
        self._since = 0

    def take(self, chunk: Floats) -> None:
        """The chunk [C, A] that was asked for; it goes on where the actions played since then have led."""
        old, new = self._chunk[self._at :], chunk[self._since :].copy()
        overlap = min(len(old), len(new))
        weights = np.where(self._binary, 0, _weights(self._blend, overlap)[:, None])
        new[:overlap] += (weights * (old[:overlap] - new[:overlap])).astype(np.float32)
        self._chunk = np.concatenate([chunk[: self._since], new])
        self._at = self._since

    def next(self) -> Floats:
        """The action [A] of this control step; only when not `empty`."""
        assert not self.empty
        action: Floats = self._chunk[self._at]
        self._at += 1
        self._since += 1
        return action

    def drop(self) -> None:
        """Forget the chunk: it was decided for a moment that is gone."""
        self._chunk, self._at = self._chunk[:0], 0


def _weights(blend: Blend, overlap: int) -> NDArray[np.float64]:
    """Weight of the old chunk in each of the overlapping control steps [O].

    `soft`: c (e^c - 1) / (e - 1) with c falling linearly, the mask of real-time chunking (arXiv:2506.07339,
    Eq. 5) behind its frozen part, which has been played by then.
    """
    if blend == "none":
        return np.zeros(overlap)
    falling = 1 - np.arange(1, overlap + 1) / (overlap + 1)
    return falling if blend == "linear" else falling * np.expm1(falling) / np.expm1(1.0)
