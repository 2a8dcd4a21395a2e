"""Frozen vision models that turn a future frame into what a latent should point at (ALGORITHM.md 6.2, 6.3).

Axes: F frames, H rows, W columns, Z teacher width, D width of the language model.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lastr1.types import Array, Floats


class Teacher(Protocol):
    """A frozen map from frames to vectors."""

    def embed(self, frames: Array) -> Floats:
        """uint8 [F, H, W, 3] -> f32 [F, Z]."""


@dataclass(frozen=True, kw_only=True)
class ThumbnailTeacher:
    """The frame itself, averaged to `side` x `side` pixels: no weights, nothing to download."""

    side: int = 8

    def embed(self, frames: Array) -> Floats:
        """Z = 3 side^2; the frame's edges must be multiples of `side`."""
        count, height, width, _ = frames.shape
        if height % self.side or width % self.side:
            raise ValueError(
                f"frames of {height} x {width} pixels cannot be averaged to {self.side} x {self.side}"
            )
        blocks = frames.reshape(count, self.side, height // self.side, self.side, width // self.side, 3)
        mean = blocks.mean(axis=(2, 4), dtype=np.float32)
        vectors: Floats = (mean / 127.5 - 1).reshape(count, -1).astype(np.float32)
        return vectors


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What every frame of a data set is worth as a target."""

    vectors: Floats
    """[F, D], in the order of the frames"""
    channels: tuple[int, ...]
    """teacher channels in use, ascending; the same for the whole run"""
    constant_cosine: float
    """mean cosine of the targets with their own mean: what a constant thought would score"""


def make_targets(
    teacher: Teacher, frames: Array, width: int, *, center: bool, channels: tuple[int, ...] = ()
) -> Targets:
    """Embed every frame and keep `width` channels: the given ones, or those with the largest mean magnitude.

    `ValueError` when the teacher is narrower than the language model (6.3: an error, never padding).
    """
    raw = np.concatenate([teacher.embed(frames[i : i + 1024]) for i in range(0, len(frames), 1024)])
    if center:
        raw = raw - raw.mean(axis=0)
    if raw.shape[1] < width:
        raise ValueError(f"the teacher's {raw.shape[1]} channels are fewer than the model's width {width}")
    chosen = channels or tuple(sorted(np.argsort(-np.abs(raw).mean(axis=0), kind="stable")[:width].tolist()))
    vectors = raw[:, list(chosen)]
    return Targets(vectors=vectors, channels=chosen, constant_cosine=_constant_cosine(vectors))


def _constant_cosine(vectors: Floats) -> float:
    mean = vectors.mean(axis=0)
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(mean)
    return float(np.mean(vectors @ mean / np.maximum(norms, 1e-8)))
