"""Frozen vision models that turn a future frame into what a latent should point at (ALGORITHM.md 6.2, 6.3).

Axes: F frames, H rows, W columns, Z teacher width, D width of the language model.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lastr1.types import Array, Floats, UserError

BATCH = 1024
"""frames handed to a teacher at once"""


class Teacher(Protocol):
    """A frozen map from frames to vectors."""

    @property
    def identity(self) -> str:
        """Weights and pre-processing in words and hashes: teachers of one identity give the same answers."""

    def embed(self, frames: Array) -> Floats:
        """uint8 [F, H, W, 3] -> f32 [F, Z]."""


@dataclass(frozen=True, kw_only=True)
class ThumbnailTeacher:
    """The frame itself, averaged to `side` x `side` pixels: no weights, nothing to download."""

    side: int = 8

    @property
    def identity(self) -> str:
        """One word at the usual size: what policies say whose files name no teacher."""
        return "thumbnail" if self.side == 8 else f"thumbnail {self.side}"

    def embed(self, frames: Array) -> Floats:
        """Z = 3 side^2; the frame's edges must be multiples of `side`."""
        count, height, width, _ = frames.shape
        if height % self.side or width % self.side:
            raise UserError(
                f"frames of {height} x {width} pixels cannot be averaged to {self.side} x {self.side}: "
                f"choose another --env.image or --warmup.teacher"
            )
        blocks = frames.reshape(count, self.side, height // self.side, self.side, width // self.side, 3)
        mean = blocks.mean(axis=(2, 4), dtype=np.float32)
        vectors: Floats = (mean / 127.5 - 1).reshape(count, -1).astype(np.float32)
        return vectors


@dataclass(frozen=True, kw_only=True)
class CallableTeacher:
    """Any function of frames; whoever gives it says what it is."""

    identity: str
    function: Callable[[Array], Floats]
    """uint8 [F, H, W, 3] -> f32 [F, Z]"""

    def embed(self, frames: Array) -> Floats:
        """What the function says."""
        return self.function(frames)


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What every frame of a data set is worth as a target."""

    vectors: Floats
    """[F, D], in the order of the frames; [F, V*D] where V image tokens are compressed while learning"""
    channels: tuple[int, ...]
    """teacher channels in use, ascending; one set for the whole run (empty: all, or chosen frame by frame)"""
    constant_cosine: float
    """mean cosine of the targets with their own mean: what a constant thought would score"""


def make_targets(
    teacher: Teacher,
    frames: Array,
    width: int,
    *,
    center: bool,
    channels: tuple[int, ...] = (),
    per_image: bool = False,
) -> Targets:
    """Embed every frame and keep `width` channels: the given ones, or those with the largest mean magnitude.

    `per_image` keeps the largest of every frame instead, in ascending channel order (6.3: the closest literal
    reading of the paper; what a number of a latent means then changes from frame to frame).
    `UserError` when the teacher is narrower than the language model (6.3: an error, never padding).
    """
    raw = embedded(teacher, frames)
    if center:
        raw = raw - raw.mean(axis=0)
    if raw.shape[1] < width:
        raise UserError(
            f"the teacher's {raw.shape[1]} channels are fewer than the model's width {width}: "
            f"choose a larger --warmup.teacher, or --warmup.target average_pool"
        )
    chosen = () if per_image else channels or _loudest(raw, width)
    vectors = _loudest_of_each(raw, width) if per_image else raw[:, list(chosen)]
    return Targets(vectors=vectors, channels=chosen, constant_cosine=constant_cosine(vectors))


def embedded(teacher: Teacher, frames: Array) -> Floats:
    """Every frame through the teacher, [F, Z]."""
    return np.concatenate([teacher.embed(frames[i : i + BATCH]) for i in range(0, len(frames), BATCH)])


def _loudest(raw: Floats, width: int) -> tuple[int, ...]:
    order = np.argsort(-np.abs(raw).mean(axis=0), kind="stable")
    return tuple(sorted(order[:width].tolist()))


def _loudest_of_each(raw: Floats, width: int) -> Floats:
    order = np.argsort(-np.abs(raw), axis=1, kind="stable")[:, :width]
    kept: Floats = np.take_along_axis(raw, np.sort(order, axis=1), axis=1)
    return kept


def constant_cosine(vectors: Floats) -> float:
    """Mean cosine of vectors [F, D] with their own mean: what a constant thought would score (6.3)."""
    mean = vectors.mean(axis=0)
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(mean)
    return float(np.mean(vectors @ mean / np.maximum(norms, 1e-8)))
