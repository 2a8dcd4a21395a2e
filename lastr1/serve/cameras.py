"""Cameras of a real robot, read with PyAV in threads of their own: the newest frame counts.

Axes: H image rows, W image columns.
"""

import threading
from dataclasses import dataclass

import av
import numpy as np
from PIL import Image as PILImage

from lastr1.config import RobotConfig
from lastr1.serve.robot import CameraLost, Clock
from lastr1.types import Image, UserError

PATTERN = "pattern"
"""source of a camera that is not there: a moving stripe"""


@dataclass(frozen=True, kw_only=True)
class _Frame:
    image: Image
    moment: float  # of the clock, when it arrived


class VideoCamera:
    """A device (/dev/video0), a stream's address or a video file."""

    def __init__(self, name: str, source: str, size: tuple[int, int], clock: Clock, stale_s: float) -> None:
        """`size`: H, W of the images; `UserError` when the source cannot be opened."""
        self._name, self._size, self._clock, self._stale_s = name, size, clock, stale_s
        try:
            self._file = av.open(source, format="v4l2" if source.startswith("/dev/video") else None)
        except (av.error.FFmpegError, OSError) as error:
            raise UserError(
                f"camera {name}: {source} cannot be opened ({error}): set robot.cameras to what is there"
            ) from None
        self._frame: _Frame | None = None
        self._closing = threading.Event()
        self._first = threading.Event()
        self._thread = threading.Thread(target=self._read, name=f"camera {name}", daemon=True)
        self._thread.start()
        self._first.wait(5.0)

    def look(self) -> Image:
        """The newest frame [H, W, 3].  `CameraLost` when it is older than `stale_s`."""
        frame = self._frame
        if frame is None or self._clock.now() - frame.moment > self._stale_s:
            raise CameraLost(f"camera {self._name} gives no new frames")
        return frame.image

    def close(self) -> None:
        """Stop reading; a source that is silent is left to its thread, which alone may close it."""
        self._closing.set()
        self._thread.join(2.0)

    def _read(self) -> None:
        try:
            for frame in self._file.decode(video=0):
                self._frame = _Frame(
                    image=fit(frame.to_ndarray(format="rgb24"), self._size), moment=self._clock.now()
                )
                self._first.set()
                if self._closing.is_set():
                    return
        except av.error.FFmpegError:
            return  # unplugged: the last frame grows stale
        finally:
            self._first.set()
            self._file.close()


class PatternCamera:
    """A stripe that moves with the clock, for robots without cameras."""

    def __init__(self, size: tuple[int, int], clock: Clock) -> None:
        self._size, self._clock = size, clock

    def look(self) -> Image:
        """[H, W, 3]"""
        image = np.full((*self._size, 3), 60, np.uint8)
        image[:, int(self._clock.now() * 20) % self._size[1]] = 250
        return image

    def close(self) -> None:
        """Nothing to free."""


def open_cameras(config: RobotConfig, clock: Clock) -> dict[str, VideoCamera | PatternCamera]:
    """The cameras of a robot by name, in the order of the configuration."""
    found: dict[str, VideoCamera | PatternCamera] = {}
    for name, _, source in (camera.partition("=") for camera in config.cameras):
        if source == PATTERN:
            found[name] = PatternCamera(config.image, clock)
        else:
            found[name] = VideoCamera(name, source, config.image, clock, config.stale)
    return found


def fit(image: Image, size: tuple[int, int]) -> Image:
    """The largest window of the right shape in the middle of an image, resized to `size` (H, W)."""
    height, width = image.shape[:2]
    scale = min(height / size[0], width / size[1])
    rows, columns = round(size[0] * scale), round(size[1] * scale)
    top, left = (height - rows) // 2, (width - columns) // 2
    window = image[top : top + rows, left : left + columns]
    resized = PILImage.fromarray(window).resize((size[1], size[0]), PILImage.Resampling.BILINEAR)
    return np.asarray(resized)
