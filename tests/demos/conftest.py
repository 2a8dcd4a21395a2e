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


@pytest.fixture
def libero_file():
    """`libero_file(path, late=True, **changes)`: 12 steps of one demonstration in LIBERO's layout.

    Every observation is the number of the simulator state it was read from (`late`: after its action).
    `changes` replace a field of the demonstration (None: leave it out) or, as `attrs`, the attributes.
    """
    h5py = pytest.importorskip("h5py")

    def write(path, *, late=True, demos=("demo_0",), attrs=None, **changes):
        steps = np.arange(12)
        seen = (steps + late).astype(np.float64)
        actions = np.zeros((12, 7))
        actions[:, 0], actions[:, 6] = 0.1 + 0.01 * steps, np.where(steps < 6, -1.0, 1.0)
        fields = {
            "actions": actions,
            "states": np.column_stack([steps] * 20).astype(np.float64),
            "obs/agentview_rgb": np.zeros((12, 8, 8, 3), np.uint8)
            + seen.astype(np.uint8)[:, None, None, None],
            "obs/eye_in_hand_rgb": np.zeros((12, 8, 8, 3), np.uint8),
            "obs/ee_states": np.column_stack([seen] * 6),
            "obs/gripper_states": np.column_stack([0.04 - seen / 400, seen / 400 - 0.04]),
            "obs/joint_states": np.column_stack([seen] * 7),
            "rewards": (steps == 11).astype(np.uint8),
            "dones": (steps == 11).astype(np.uint8),
            "robot_states": np.zeros((12, 9)),
            **{key.replace("__", "/"): value for key, value in changes.items()},
        }
        bddl = "libero/bddl_files/libero_goal/open_the_middle_drawer_of_the_cabinet.bddl"
        found = {
            "bddl_file_name": bddl,
            "problem_info": '{"language_instruction": "Open it"}',
            "num_demos": 1,
        }
        with h5py.File(path, "w") as file:
            data = file.create_group("data")
            for key, value in (found if attrs is None else attrs).items():
                data.attrs[key] = value
            for name in demos:
                for key, value in fields.items():
                    if value is not None:
                        data[f"{name}/{key}"] = value
        return path

    return write
