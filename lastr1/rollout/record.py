"""Videos of episodes."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lastr1.demos.mp4 import BROWSER, VideoWriter


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
