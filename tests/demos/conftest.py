import numpy as np
import pytest
from numpy.typing import NDArray

from lastr1.demos.dataset import Demonstration
from lastr1.spec import Camera, Dim, RobotSpec

TASKS = ("lift the cube", "open the drawer", "push the button")


@pytest.fixture
def spec() -> RobotSpec:
    return RobotSpec(
        name="toy",
        cameras=(Camera(name="front", height=16, width=24), Camera(name="wrist", height=8, width=8)),
        state=tuple(Dim(name=n, unit="m", low=-1, high=1) for n in ("x", "y", "z")),
        action=(
            Dim(name="dx", unit="controller", low=-1, high=1),
            Dim(name="gripper", unit="open fraction", low=0, high=1, binary=True),
        ),
        rate=12.5,
        hold=(0.0, 1.0),
    )


@pytest.fixture
def demos() -> list[Demonstration]:
    """Three demonstrations of 7, 1 and 12 control steps; smooth pictures, so that video can hold them."""
    return [demonstration(task=2, steps=7), demonstration(task=0, steps=1), demonstration(task=2, steps=12)]


def demonstration(*, task: int, steps: int) -> Demonstration:
    rng = np.random.default_rng(100 * task + steps)
    ramp = np.arange(steps + 1)[:, None, None, None]

    def film(height: int, width: int) -> NDArray[np.uint8]:
        y, x, c = np.ogrid[:height, :width, :3]
        pixels: NDArray[np.uint8] = (20 * task + 4 * y + 5 * x + 40 * c + 3 * ramp).astype(np.uint8)
        return pixels

    return Demonstration(
        task=task,
        instruction=TASKS[task],
        frames={"front": film(16, 24), "wrist": film(8, 8)},
        states=rng.normal(size=(steps + 1, 3)).astype(np.float32),
        actions=rng.uniform(-1, 1, size=(steps, 2)).astype(np.float32),
    )
