"""What a run leaves behind of its episodes: videos, and one JSON line each."""

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from lastr1.demos.mp4 import BROWSER, VideoWriter
from lastr1.types import UserError


def write_video(path: Path, frames: NDArray[np.uint8], fps: float) -> None:
    """Write uint8 RGB frames [T, H, W, 3] as an mp4 that browsers play; `path` appears when it is complete.

    Odd sizes are extended by their last row or column, because yuv420p needs even ones.
    """
    if frames.ndim != 4 or not len(frames) or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise ValueError(
            f"a video needs uint8 [T >= 1, H, W, 3] frames, not {frames.dtype} {list(frames.shape)}"
        )
    _, height, width, _ = frames.shape
    even = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        with VideoWriter(
            part, height=even.shape[1], width=even.shape[2], rate=fps, encoders=BROWSER
        ) as writer:
            writer.add(even)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class EpisodeLine:
    """One finished episode (ALGORITHM.md 7.3)."""

    iteration: int
    """of the run; 0 in an evaluation"""
    task: int
    state: int | None
    """stored initial state, or None for a scene drawn from `seed`"""
    seed: int
    success: bool
    steps: int
    """control steps played"""
    groups: tuple[int, ...]
    """thought length of each decision, in groups of latents; zeros for a policy that does not think"""
    seconds: float
    """wall clock"""
    version: int
    """of the weights that played"""
    video: str = ""
    """file name, relative to the log; empty when none was recorded"""


class EpisodeLog:
    """A JSON-lines file that grows by one line per episode and survives being killed.

    An incomplete last line, left by a process that was killed, is dropped when the file is opened again.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab+")
        self._file.seek(0)
        complete = self._file.read().rfind(b"\n") + 1
        self._file.truncate(complete)

    def write(self, line: EpisodeLine) -> None:
        """Append one episode; it is in the file when this returns."""
        self._file.write(json.dumps(asdict(line)).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> "EpisodeLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_episodes(path: Path) -> tuple[EpisodeLine, ...]:
    """All complete lines of a log.  `UserError` names the line that is not an episode."""
    lines = []
    wanted = {field.name for field in fields(EpisodeLine)}
    for number, text in enumerate(path.read_text().split("\n")[:-1], start=1):
        try:
            entry = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number} is no JSON ({error}): remove the line") from error
        if not isinstance(entry, dict) or set(entry) != wanted:
            raise UserError(f"{path}, line {number} is no episode: its fields must be {sorted(wanted)}")
        lines.append(EpisodeLine(**entry | {"groups": tuple(entry["groups"])}))
    return tuple(lines)
