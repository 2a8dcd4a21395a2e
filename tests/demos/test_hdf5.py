"""LIBERO's own files: what is read from them, in which convention, and what is said about damaged ones."""

import builtins
from pathlib import Path

import numpy as np
import pytest

from lastr1.demos.hdf5 import open_hdf5
from lastr1.demos.libero_raw import open_fraction, without_noops
from lastr1.demos.source import matching_tasks, open_source
from lastr1.types import UserError


def test_noops_are_dropped_as_openvla_drops_them() -> None:
    """Still: dropped.  Still, but the gripper changes: kept.  The first step: its gripper does not matter."""
    actions = np.zeros((8, 7))
    actions[:, 6] = [1, -1, -1, 1, 1, -1, -1, -1]
    actions[1, 0] = 0.5
    actions[4, 3] = 2e-4  # more than 1e-4
    actions[7, :6] = 3e-5  # norm 7e-5
    assert without_noops(actions).tolist() == [1, 3, 4, 5]


def test_gripper_becomes_an_open_fraction() -> None:
    assert open_fraction(np.array([-1.0, 1.0, 0.25])).tolist() == [1.0, 0.0, 0.75]


@pytest.mark.parametrize("late", [True, False])
def test_pictures_and_states_are_those_before_each_action(tmp_path: Path, libero_file, late: bool) -> None:
    """The number of each observation is that of the simulator state; LIBERO's files show the next one."""
    actions = np.zeros((12, 7))
    actions[[2, 5, 9], 0] = 0.5
    actions[:, 6] = -1
    path = libero_file(tmp_path / "x_demo.hdf5", late=late, actions=actions)
    (demo,) = open_hdf5(path).demonstrations()
    assert demo.states[:, 0].tolist() == [2, 5, 9, 12 if late else 11]
    assert demo.frames["agentview"][:, 0, 0, 0].tolist() == [2, 5, 9, 12 if late else 11]
    assert demo.actions[:, 0].tolist() == [0.5] * 3
    assert demo.actions[:, 6].tolist() == [1.0] * 3
    assert demo.start is not None
    assert demo.start.placed == (0.0,) * 20


def test_pictures_are_turned_upright(tmp_path: Path, libero_file) -> None:
    images = np.arange(12 * 8 * 8 * 3, dtype=np.uint8).reshape(12, 8, 8, 3)
    path = libero_file(tmp_path / "x_demo.hdf5", obs__agentview_rgb=images)
    (demo,) = open_hdf5(path).demonstrations()
    assert (demo.frames["agentview"][3] == np.rot90(images[2], 2)).all()


def test_a_folder_of_files_and_their_tasks(tmp_path: Path, libero_file) -> None:
    """The task is named by its file of goals, or, where OpenVLA's script dropped that, by the file itself."""
    libero_file(tmp_path / "a_demo.hdf5", demos=("demo_0", "demo_10", "demo_2"))
    libero_file(tmp_path / "KITCHEN_SCENE10_close_the_drawer_demo.hdf5", attrs={})
    source = open_source(tmp_path)
    assert source.tasks == ("close the drawer", "open the middle drawer of the cabinet")
    assert [(e.task, e.name) for e in source.episodes] == [  # type: ignore[attr-defined]
        (0, "demo_0"), (1, "demo_0"), (1, "demo_2"), (1, "demo_10"),
    ]  # fmt: skip
    assert source.all_actions().shape == (48, 7)
    assert len(list(source.demonstrations([1, 3]))) == 2
    suite = ("turn on the stove", "Open the middle drawer of the cabinet.")
    assert matching_tasks(source, suite, "libero_goal") == {1: 1}
    with pytest.raises(UserError, match=r"shows no task of libero_goal \(but 'close the drawer'\)"):
        matching_tasks(source, ("turn on the stove",), "libero_goal")
    with pytest.raises(UserError, match="has several tasks 'close the drawer'"):
        matching_tasks(source, ("close the drawer", "close the drawer"), "libero_90")
    twice = ("turn on the stove", "close the drawer", "close the drawer")
    assert matching_tasks(source, twice, "libero_90", (2,)) == {0: 2}
    assert matching_tasks(source, twice, "libero_90", replayed=False) == {0: 1}


BROKEN = [
    ("actions", None, "data/demo_0/actions is missing"),
    ("states", np.zeros((0, 4)), "data/demo_0/states has no finite first state"),
    ("states", np.zeros((12, 4)), "data/demo_0/states holds no time and seven joints per step"),
    ("obs__ee_states", np.zeros((12, 7)), r"obs/ee_states has the shape \[12, 7\], \[12, 6\] is needed"),
    ("obs__agentview_rgb", np.zeros((12, 8, 8, 3)), "agentview_rgb is float64, not uint8"),
    ("obs__gripper_states", np.full((12, 2), np.nan), "gripper_states holds values that are not finite"),
    ("obs__joint_states", None, "obs/joint_states is missing"),
]


@pytest.mark.parametrize(("field", "value", "message"), BROKEN)
def test_damaged_fields_are_named(
    tmp_path: Path, libero_file, field: str, value: np.ndarray | None, message: str
) -> None:
    path = libero_file(tmp_path / "x_demo.hdf5", **{field: value})
    with pytest.raises(UserError, match=f"x_demo.hdf5.*{message}"):
        list(open_hdf5(path).demonstrations())


def test_files_that_are_none(tmp_path: Path, libero_file, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, message: str) -> None:
        with pytest.raises(UserError, match=message):
            list(open_hdf5(path).demonstrations())

    refused(tmp_path / "no.hdf5", "no.hdf5 is missing")
    path = tmp_path / "x_demo.hdf5"
    path.write_bytes(b"not an HDF5 file")
    refused(path, "x_demo.hdf5 is damaged or no HDF5 file")
    libero_file(path)
    path.write_bytes(path.read_bytes()[:3000])
    refused(path, "x_demo.hdf5 is damaged")
    refused(libero_file(path, demos=()), "data holds no demonstration")
    refused(libero_file(path, demos=("episode_1",)), r"data holds \['episode_1'\]")
    still = np.zeros((12, 7))
    refused(libero_file(path, actions=still), "data/demo_0/actions holds no-ops only")
    refused(libero_file(path, actions=still + 3), r"data/demo_0/actions leave -1..1")
    original = builtins.__import__

    def absent(name: str, *args: object) -> object:
        if name == "h5py":
            raise ImportError(name)
        return original(name, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", absent)
    refused(path, r"h5py is not installed: pip install 'lastr1\[libero\]'")
