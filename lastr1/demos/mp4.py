"""Writing and reading mp4 files, with PyAV alone.

Axes: T frames, H image rows, W image columns.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np

from lastr1.types import Array, Image, UserError

Encoders = Mapping[str, Mapping[str, str]]
"""Encoder name -> options, in order of preference."""

BROWSER: Encoders = {
    "libx264": {"crf": "20", "preset": "veryfast"},
    "libopenh264": {},
    "libsvtav1": {"crf": "30", "preset": "8"},
}
"""Plays in every current browser."""

DATASET: Encoders = {
    "libsvtav1": {"g": "2", "crf": "30", "preset": "8"},
    "libx264": {"g": "2", "crf": "18", "preset": "veryfast"},
    "mpeg4": {"g": "2", "qmin": "2", "qmax": "3"},
}
"""A key frame every other frame, as LeRobot does, so that any frame is found quickly."""


def choose(encoders: Encoders) -> tuple[str, Mapping[str, str]]:
    """The first encoder that this installation of PyAV has.  `UserError` when it has none of them."""
    for name, options in encoders.items():
        try:
            av.codec.Codec(name, "w")
        except av.codec.codec.UnknownCodecError:
            continue
        return name, options
    raise UserError(f"PyAV {av.__version__} has no encoder of {list(encoders)}: pip install --upgrade av")


@contextmanager
def usual_priority() -> Iterator[None]:
    """Take back what SVT-AV1 does as root: real-time priority 99 for its threads and the one that opens it.

    That starves simulators, a robot's loop and every process started from that thread later on.
    """
    if sys.platform != "linux":
        yield
        return
    policy, parameters, before = os.sched_getscheduler(0), os.sched_getparam(0), _threads()
    try:
        yield
    finally:
        for thread in [0, *_threads() - before]:
            with suppress(OSError):  # it has ended meanwhile
                os.sched_setscheduler(thread, policy, parameters)


def _threads() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/task")}


class VideoWriter:
    """An mp4 file (yuv420p) that grows frame by frame; sizes must be even, in pixels."""

    def __init__(self, path: Path, *, height: int, width: int, rate: float, encoders: Encoders) -> None:
        if height % 2 or width % 2:
            raise UserError(f"a video needs even sizes, not {height}x{width} pixels: store images, or resize")
        os.environ.setdefault("SVT_LOG", "1")  # errors only: the encoder prints a page per file otherwise
        self.codec, options = choose(encoders)
        self.frames = 0
        self.bytes = 0
        """written so far; the encoder may hold more"""
        self._rate = Fraction(rate).limit_denominator(1000)
        # faststart: the index comes first, so that a browser plays before it has everything
        self._file = av.open(str(path), "w", options={"movflags": "faststart"})
        self._stream = self._file.add_stream(self.codec, rate=self._rate, options=dict(options))
        self._stream.height, self._stream.width, self._stream.pix_fmt = height, width, "yuv420p"
        with usual_priority():
            self._stream.codec_context.open()

    def add(self, frames: Array) -> None:
        """Append uint8 RGB frames [T, H, W, 3]."""
        for image in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = self.frames, 1 / self._rate
            self._mux(frame)
            self.frames += 1

    def close(self) -> None:
        """Write what the encoder still holds."""
        self._mux(None)
        self._file.close()

    def _mux(self, frame: Any) -> None:
        packets = self._stream.encode(frame)
        self.bytes += sum(packet.size for packet in packets)
        self._file.mux(packets)

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class VideoReader:
    """Frames of one camera, in any order; fast when the order is the one they were recorded in."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._file: Any = None
        self._images: Iterator[Any] = iter(())
        self._at = 0

    def read(self, path: Path, first: int, count: int) -> list[Image]:
        """Frames first..first + count - 1, [H, W, 3] each.  `UserError` when the file has no such frames."""
        try:
            if self._path != path or self._at > first:
                self._open(path)
            frames = []
            for image in self._images:
                self._at += 1
                if self._at > first:
                    frames.append(image.to_ndarray(format="rgb24"))
                if self._at == first + count:
                    return frames
        except (av.error.FFmpegError, OSError) as error:
            raise UserError(f"{path} cannot be decoded ({error}): fetch or record it again") from error
        raise UserError(f"{path} ends after {self._at} frames, {first + count} are listed: fetch it again")

    def close(self) -> None:
        """Close the file that was read last."""
        if self._file is not None:
            self._file.close()

    def _open(self, path: Path) -> None:
        self.close()
        self._file = av.open(str(path))
        self._images = iter(self._file.decode(video=0))
        self._path, self._at = path, 0
