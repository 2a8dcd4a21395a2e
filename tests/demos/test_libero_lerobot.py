"""LeRobot datasets of LIBERO as people download them: what is accepted and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lastr1.config import CollectConfig, Config, EnvConfig
from lastr1.demos.dataset import Demonstration
from lastr1.demos.lerobot import open_recording
from lastr1.demos.lerobot_writer import write_recording
from lastr1.demos.libero_raw import as_libero
from lastr1.envs.libero_stack import libero_spec
from lastr1.spec import Camera
from lastr1.train.run import load_demonstrations
from lastr1.types import UserError

DATA = "data/chunk-000/file-000.parquet"
PUBLIC = (
    "put the white mug on the plate",
    "turn on the stove",
    "open the middle drawer of the cabinet",
)
GOAL = ("open the middle drawer of the cabinet", "put the bowl on the stove", "turn on the stove")
SPEC = libero_spec(image=16)


def public_dataset(
    root: Path, *, gripper: str = "command", state: np.ndarray | None = None, fps: int = 10
) -> Path:
    """The features of `HuggingFaceVLA/libero` (v3.0): image, image2, state and action without names."""
    rng = np.random.default_rng(0)
    opened = np.where(np.arange(9) < 5, 1.0, 0.0)
    labels = {"command": 1 - 2 * opened, "fraction": opened, "flipped": 2 * opened - 1, "closed": 1 - opened}[
        gripper
    ]
    width = np.append(1.0, opened) * 0.04  # the fingers follow
    demos = []
    for task in (1, 2, 0, 2):
        states = rng.uniform(-0.5, 0.5, (10, 8)).astype(np.float32)
        states[:, 6], states[:, 7] = width, -width
        frames = np.full((10, 16, 16, 3), 40 * task, np.uint8)
        demos.append(
            Demonstration(
                task=task,
                instruction=PUBLIC[task],
                frames={"image": frames, "image2": 255 - frames},
                states=states if state is None else state,
                actions=np.column_stack([rng.uniform(-1, 1, (9, 6)), labels]).astype(np.float32),
            )
        )
    cameras = tuple(Camera(name=n, height=16, width=16) for n in ("image", "image2"))
    write_recording(root, demos, spec=replace(SPEC, cameras=cameras, rate=float(fps)), tasks=PUBLIC)
    edit(root, robot_type="panda")
    named(root, "observation.state", ["state"])
    named(root, "action", ["actions"])
    return root


def edit(root: Path, **changes: object) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def named(root: Path, feature: str, names: object) -> None:
    info = json.loads((root / "meta/info.json").read_text())
    info["features"][feature]["names"] = names
    edit(root, features=info["features"])


def config(**collect: int) -> Config:
    return Config(
        name="libero_goal",
        env=EnvConfig(suite="libero_goal", image=16),
        collect=CollectConfig(**collect),
    )


@pytest.mark.parametrize("gripper", ["command", "fraction"])
@pytest.mark.parametrize("fps", [10, 20])
def test_a_public_dataset_teaches_the_recipes_tasks(tmp_path: Path, gripper: str, fps: int) -> None:
    """Only libero_goal's two tasks, the gripper as an open fraction, the agent view alone."""
    root = public_dataset(tmp_path / "set", gripper=gripper, fps=fps)
    data = load_demonstrations(config(), root, SPEC, GOAL)
    assert data.tasks.tolist() == [2, 0]
    assert data.instructions == ("turn on the stove", "open the middle drawer of the cabinet")
    assert list(data.frames) == ["agentview"]
    assert np.unique(data.frames["agentview"]).tolist() == [40, 80]
    assert data.actions[:, 6].tolist() == [1.0] * 5 + [0.0] * 4 + [1.0] * 5 + [0.0] * 4
    stored = np.concatenate([d.actions for d in open_recording(root).demonstrations([0])])
    assert (data.actions[:9, :6] == stored[:, :6]).all()


def test_names_that_fit_do_not_make_a_dataset_ours(tmp_path: Path) -> None:
    """The environment's camera and rate, and no names of dimensions: the gripper is still a command."""
    root = public_dataset(tmp_path / "set", fps=20)
    info = json.loads((root / "meta/info.json").read_text())
    new = {"observation.images.image": "observation.images.agentview"}
    features = {new.get(k, k): f for k, f in info["features"].items() if not k.endswith("image2")}
    edit(root, features=features)
    table = pq.read_table(root / DATA)
    pq.write_table(table.rename_columns([new.get(n, n) for n in table.column_names]), root / DATA)
    assert open_recording(root).robot.mismatches(SPEC) == []
    data = load_demonstrations(config(), root, SPEC, GOAL)
    assert data.actions[:, 6].tolist() == ([1.0] * 5 + [0.0] * 4) * 2


def test_openpis_names_of_features(tmp_path: Path) -> None:
    """physical-intelligence/libero after LeRobot's own conversion to v3.0: image, state, actions."""
    root = public_dataset(tmp_path / "set")
    old = {"observation.state": "state", "action": "actions"}
    old |= {f"observation.images.{n}": n for n in ("image", "image2")}
    info = json.loads((root / "meta/info.json").read_text())
    edit(root, features={old.get(key, key): value for key, value in info["features"].items()})
    table = pq.read_table(root / DATA)
    pq.write_table(table.rename_columns([old.get(n, n) for n in table.column_names]), root / DATA)
    data = load_demonstrations(config(), root, SPEC, GOAL)
    assert data.tasks.tolist() == [2, 0]
    assert np.unique(data.frames["agentview"]).tolist() == [40, 80]


def test_tasks_that_are_asked_for(tmp_path: Path) -> None:
    root = public_dataset(tmp_path / "set")
    chosen = replace(config(), env=EnvConfig(suite="libero_goal", image=16, tasks=(0,)))
    assert load_demonstrations(chosen, root, SPEC, GOAL).tasks.tolist() == [0]
    with pytest.raises(UserError, match="task 2 has 1 demonstrations, 2 are asked for"):
        load_demonstrations(config(episodes=2), root, SPEC, GOAL)
    with pytest.raises(UserError, match="shows no task of libero_goal"):
        load_demonstrations(config(), root, SPEC, ("fly to the moon",))


def test_what_is_refused(tmp_path: Path) -> None:
    def refused(message: str, root: Path, spec=SPEC) -> None:
        with pytest.raises(UserError, match=message):
            as_libero(open_recording(root), spec)

    root = public_dataset(tmp_path / "good")
    refused(r"camera image: 16 x 16 pixels, the recipe wants 256 \(--env.image 16\)", root, libero_spec())
    for kind, words in (("flipped", r"-1 opens, \+1 closes"), ("closed", "1 is open, 0 closed")):
        other = public_dataset(tmp_path / kind, gripper=kind)
        refused(rf"gripper of action is flipped: the fingers close .*\(expected: {words}\)", other)
    refused(r"fps 30: LIBERO's control steps", public_dataset(tmp_path / "fps", fps=30))
    quaternion = np.tile([0.1, 0.2, 0.3, 1.0, 0.0, 0.0, 0.2, 0.04], (10, 1)).astype(np.float32)
    other = public_dataset(tmp_path / "quaternion", state=quaternion)
    refused(r"observation.state left_finger runs from 0.2 to 0.2 m, not within -0.01..0.05", other)
    absolute = public_dataset(tmp_path / "absolute")
    table = pq.read_table(absolute / DATA)
    values = np.array(table["action"].to_pylist(), np.float32) * 3
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 7)
    pq.write_table(table.set_column(table.column_names.index("action"), "action", column), absolute / DATA)
    refused(r"action x runs from -2.9\S* to \S+ controller, not within -1..1", absolute)
    info = json.loads((root / "meta/info.json").read_text())["features"]
    edit(
        root,
        features={
            k.replace("image2", "wrist").replace("images.image", "images.top"): f for k, f in info.items()
        },
    )
    refused(r"cameras \['top', 'wrist'\]: the agent view must be called image or agentview", root)
    edit(root, codebase_version="v2.0")
    refused("codebase_version v2.0 is not v3.0: convert it with lerobot", root)


def test_other_robots_keep_their_own_check(tmp_path: Path) -> None:
    root = public_dataset(tmp_path / "set")
    table = replace(config(), env=EnvConfig(suite="tabletop", image=16))
    with pytest.raises(UserError, match="does not fit tabletop: rate: 10 in the dataset"):
        load_demonstrations(table, root, SPEC, GOAL)
