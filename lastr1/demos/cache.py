"""A teacher's answers on disk, in pieces that are whole or absent (ALGORITHM.md 6.2: once per frame).

Axes: F frames, P frames of one piece, H rows, W columns, Z teacher width.
"""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b, sha256
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from lastr1.demos.teacher import Teacher
from lastr1.types import Array, Floats

PIECE = 64
"""frames of one file: what an interruption costs"""


@dataclass(frozen=True, kw_only=True)
class CachedTeacher:
    """The same teacher; what it has said about a piece of frames is looked up, never asked again.

    A file is named by the pixels of its frames and the teacher's identity, so nothing has to be invalidated,
    and runs may share a folder.
    """

    teacher: Teacher
    folder: Path
    advance: Callable[[], None] = lambda: None
    """called after every piece"""

    @property
    def identity(self) -> str:
        """The teacher's own."""
        return self.teacher.identity

    def embed(self, frames: Array) -> Floats:
        """uint8 [F, H, W, 3] -> f32 [F, Z]."""
        parts = []
        for first in range(0, len(frames), PIECE):
            parts.append(self._piece(frames[first : first + PIECE]))
            self.advance()
        return np.concatenate(parts)

    def _piece(self, frames: Array) -> Floats:
        path = self.folder / f"{piece_name(self.identity, frames)}.safetensors"
        found = _read(path)
        if found is None:
            found = np.ascontiguousarray(self.teacher.embed(frames), np.float32)
            _write(path, found)
        return found


def piece_name(identity: str, frames: Array) -> str:
    """Hash of what the answer depends on: the teacher, and frames uint8 [P, H, W, 3]."""
    key = blake2b(f"{identity}\n{frames.shape}\n".encode(), digest_size=20)
    key.update(np.ascontiguousarray(frames).data)
    return key.hexdigest()


def _read(path: Path) -> Floats | None:
    """[P, Z], or None: not there, or damaged."""
    try:
        stored = load(path.read_bytes())
    except (FileNotFoundError, SafetensorError):
        return None
    if set(stored) != {"vectors", "sha256"}:
        return None
    vectors: Floats = stored["vectors"]
    return vectors if stored["sha256"].tobytes() == _checksum(vectors) else None


def _write(path: Path, vectors: Floats) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    check = np.frombuffer(_checksum(vectors), np.uint8)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(save({"vectors": vectors, "sha256": check}))
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _checksum(vectors: Floats) -> bytes:
    return sha256(np.ascontiguousarray(vectors).data).digest()
