"""LeRobotDataset v3.0: the round trip, the layout on disk, foreign datasets, damage."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lastr1.demos import lerobot_rows, lerobot_writer
from lastr1.demos.dataset import Demonstration
from lastr1.demos.lerobot import open_recording
from lastr1.demos.lerobot_writer import write_recording
from lastr1.spec import Dim, RobotSpec
from lastr1.types import UserError

TASKS = ("lift the cube", "open the drawer", "push the button")
DATA = "data/chunk-000/file-000.parquet"


@pytest.fixture
def stored(tmp_path: Path, demos: list[Demonstration], spec: RobotSpec) -> Path:
    root = tmp_path / "set"
    assert write_recording(root, iter(demos), spec=spec, tasks=TASKS) == 3
    return root


def assert_equal(a: Demonstration, b: Demonstration, *, frames: bool = True) -> None:
    assert (a.task, a.instruction) == (b.task, b.instruction)
    assert a.states.dtype == b.states.dtype == np.float32
    assert (a.states == b.states).all()
    assert (a.actions == b.actions).all()
    assert list(a.frames) == list(b.frames)
    if frames:
        assert all((a.frames[c] == b.frames[c]).all() for c in a.frames)


def test_images_come_back_exactly(stored: Path, demos: list[Demonstration], spec: RobotSpec) -> None:
    recording = open_recording(stored)
    for read, written in zip(recording.demonstrations(), demos, strict=True):
        assert_equal(read, written)
    assert recording.tasks == TASKS
    assert [(e.task, e.rows) for e in recording.episodes] == [(2, 8), (0, 2), (2, 13)]
    assert recording.robot.mismatches(spec) == []
    (second,) = recording.demonstrations([1])
    assert_equal(second, demos[1])


def test_video_comes_back_nearly(tmp_path: Path, demos: list[Demonstration], spec: RobotSpec) -> None:
    root = tmp_path / "set"
    write_recording(root, demos, spec=spec, tasks=TASKS, images="video")
    recording = open_recording(root)
    assert recording.robot.mismatches(spec) == []
    for chosen in (None, [2], [0, 2]):
        wanted = demos if chosen is None else [demos[i] for i in chosen]
        for read, written in zip(recording.demonstrations(chosen), wanted, strict=True):
            assert_equal(read, written, frames=False)
            for camera, frames in written.frames.items():
                error = np.abs(read.frames[camera].astype(int) - frames).mean()
                assert error < 6.0, (
                    camera,
                    error,
                )  # neighbouring frames differ by 3 everywhere, others by more
                shifted = np.abs(read.frames[camera][:-1].astype(int) - frames[1:]).mean()
                assert error < shifted
    assert "observation.images.front" not in pq.read_schema(root / DATA).names
    row = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()[2]
    # 8 + 2 frames before, 13 in it, 12.5 per second
    assert row["videos/observation.images.front/from_timestamp"] == pytest.approx(10 / 12.5)
    assert row["videos/observation.images.front/to_timestamp"] == pytest.approx(23 / 12.5)
    info = json.loads((root / "meta/info.json").read_text())
    assert info["features"]["observation.images.wrist"]["info"]["video.codec"] in ("av1", "h264", "mpeg4")
    odd = replace(demos[0], frames={c: f[:, :7] for c, f in demos[0].frames.items()})
    low = replace(spec, cameras=tuple(replace(c, height=7) for c in spec.cameras))
    with pytest.raises(UserError, match="even sizes"):
        write_recording(tmp_path / "odd", [odd], spec=low, tasks=TASKS, images="video")


def test_the_layout_that_lerobot_reads(stored: Path, demos: list[Demonstration]) -> None:
    info = json.loads((stored / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["robot_type"]) == ("v3.0", 12.5, "toy")
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, 23, 3)
    assert info["splits"] == {"train": "0:3"}
    assert info["features"]["action"] == {"dtype": "float32", "shape": [2], "names": ["dx", "gripper"]}
    assert info["features"]["observation.images.front"] == {
        "dtype": "image",
        "shape": [16, 24, 3],
        "names": ["height", "width", "channels"],
    }
    table = pq.read_table(stored / DATA)
    assert set(table.column_names) == set(info["features"])
    assert pq.ParquetFile(stored / DATA).num_row_groups == 3
    assert table.schema.field("action").type == pa.list_(pa.float32(), 2)
    assert table["index"].to_pylist() == list(range(23))
    assert table["frame_index"].to_pylist()[6:12] == [6, 7, 0, 1, 0, 1]
    assert table["timestamp"].to_pylist()[7] == pytest.approx(7 / 12.5)
    assert [i for i, done in enumerate(table["next.done"].to_pylist()) if done] == [7, 9, 22]
    assert table["action"].to_pylist()[6] == table["action"].to_pylist()[7]
    assert table["task_index"].to_pylist() == [2] * 8 + [0] * 2 + [2] * 13
    rows = pq.read_table(stored / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [(r["dataset_from_index"], r["dataset_to_index"], r["length"]) for r in rows] == [
        (0, 8, 8),
        (8, 10, 2),
        (10, 23, 13),
    ]
    assert rows[0]["tasks"] == ["push the button"]
    pandas = json.loads(pq.read_schema(stored / "meta/tasks.parquet").metadata[b"pandas"])
    assert pandas["index_columns"] == ["task"]
    stats = json.loads((stored / "meta/stats.json").read_text())
    actions = np.concatenate([d.actions for d in demos]).astype(np.float64)
    assert stats["action"]["std"] == pytest.approx(actions.std(0).tolist())
    assert stats["action"]["count"] == [20]
    pixels = np.concatenate([d.frames["wrist"] for d in demos]) / 255  # 8 + 2 + 13 frames: all are looked at
    assert np.shape(stats["observation.images.wrist"]["mean"]) == (3, 1, 1)
    for name, limit in (("min", pixels.min((0, 1, 2))), ("max", pixels.max((0, 1, 2)))):
        assert np.ravel(stats["observation.images.wrist"][name]) == pytest.approx(limit)
    assert np.ravel(stats["observation.images.wrist"]["std"]) == pytest.approx(pixels.std((0, 1, 2)))


def test_files_are_split_when_they_grow(
    tmp_path: Path, demos: list[Demonstration], spec: RobotSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lerobot_writer, "DATA_MB", -1)
    monkeypatch.setattr(lerobot_writer, "VIDEO_MB", -1)
    monkeypatch.setattr(lerobot_writer, "CHUNK", 2)
    root = tmp_path / "set"
    write_recording(root, demos, spec=spec, tasks=TASKS, images="video")
    files = sorted(str(p.relative_to(root / "data")) for p in root.glob("data/*/*"))
    assert files == [
        "chunk-000/file-000.parquet",
        "chunk-000/file-001.parquet",
        "chunk-001/file-000.parquet",
    ]
    assert len(list(root.glob("videos/observation.images.front/*/*.mp4"))) == 3
    for read, written in zip(open_recording(root).demonstrations(), demos, strict=True):
        assert_equal(read, written, frames=False)


def test_vectors_of_one_number(tmp_path: Path, demos: list[Demonstration], spec: RobotSpec) -> None:
    small = replace(spec, state=spec.state[:1])
    demo = replace(demos[0], states=demos[0].states[:, :1])
    write_recording(tmp_path / "set", [demo], spec=small, tasks=TASKS)
    assert pq.read_schema(tmp_path / "set" / DATA).field("observation.state").type == pa.float32()
    (read,) = open_recording(tmp_path / "set").demonstrations()
    assert_equal(read, demo)


def test_writing_is_all_or_nothing(
    tmp_path: Path, stored: Path, demos: list[Demonstration], spec: RobotSpec
) -> None:
    def breaks() -> object:
        yield demos[0]
        raise KeyboardInterrupt

    with pytest.raises(UserError, match="exists: choose another folder"):
        write_recording(stored, demos, spec=spec, tasks=TASKS)
    with pytest.raises(KeyboardInterrupt):
        write_recording(stored, breaks(), spec=spec, tasks=TASKS, replace=True)  # type: ignore[arg-type]
    assert len(list(open_recording(stored).demonstrations())) == 3
    write_recording(stored, demos[:1], spec=spec, tasks=TASKS, replace=True)
    assert len(list(open_recording(stored).demonstrations())) == 1
    (tmp_path / "home").mkdir()
    with pytest.raises(UserError, match="is no dataset, it will not be replaced"):
        write_recording(tmp_path / "home", demos, spec=spec, tasks=TASKS, replace=True)
    with pytest.raises(UserError, match="no demonstrations to write"):
        write_recording(tmp_path / "empty", [], spec=spec, tasks=TASKS)
    with pytest.raises(ValueError, match="'push the button' is not task 2"):
        write_recording(tmp_path / "tasks", demos, spec=spec, tasks=TASKS[::-1])
    with pytest.raises(ValueError, match="do not fit toy"):
        write_recording(
            tmp_path / "size", demos, spec=replace(spec, action=spec.action[:1], hold=(0.0,)), tasks=TASKS
        )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["home", "set"]


def test_mismatches_name_what_differs(stored: Path, spec: RobotSpec) -> None:
    other = replace(
        spec,
        rate=20.0,
        cameras=spec.cameras[:1],
        action=(Dim(name="dz", unit="controller", low=-1, high=1), spec.action[1]),
        state=spec.state[:2],
    )
    found = open_recording(stored).robot.mismatches(other)
    assert [line.split(":")[0] for line in found] == ["rate", "cameras", "state", "action"]


def edit(root: Path, **changes: object) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_foreign_dataset_with_other_habits(
    stored: Path, demos: list[Demonstration], spec: RobotSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lerobot_rows, "BATCH", 3)  # episodes come in pieces
    info = json.loads((stored / "meta/info.json").read_text())
    features = info["features"]
    features["observation.images.front"]["shape"] = [3, 16, 24]  # channels first
    features["observation.state"]["names"] = {"motors": ["x", "y", "z"]}
    features["action"]["names"] = ["actions"]  # one name for all
    edit(stored, features=features, robot_type=None)
    table = pq.read_table(stored / DATA)
    pq.write_table(table, stored / DATA, row_group_size=5)  # row groups cut across episodes
    tasks = pa.table({"task_index": [1, 2, 0], "__index_level_0__": [TASKS[1], TASKS[2], TASKS[0]]})
    pq.write_table(tasks, stored / "meta/tasks.parquet")
    recording = open_recording(stored)
    assert recording.robot.mismatches(spec) == []
    assert recording.robot.action == ("", "")
    for read, written in zip(recording.demonstrations(), demos, strict=True):
        assert_equal(read, written)


def test_damage_is_named(stored: Path, tmp_path: Path) -> None:
    def damaged(name: str) -> Path:
        return Path(shutil.copytree(stored, tmp_path / name))

    def read(root: Path) -> None:
        list(open_recording(root).demonstrations())

    def change(root: Path, name: str, values: pa.Array) -> None:
        table = pq.read_table(root / DATA)
        at = table.column_names.index(name)
        pq.write_table(table.set_column(at, pa.field(name, values.type), values), root / DATA)

    with pytest.raises(UserError, match=r"meta/info.json is missing: give the folder"):
        read(tmp_path / "nowhere")
    root = damaged("version")
    edit(root, codebase_version="v2.1")
    with pytest.raises(UserError, match=r"codebase_version v2.1 is not v3.0: convert"):
        read(root)
    (root / "meta/info.json").write_text("{")
    with pytest.raises(UserError, match=r"info.json is damaged"):
        read(root)
    edit_me = damaged("features")
    edit(edit_me, features={})
    with pytest.raises(UserError, match=r"meta has no field 'observation.state'"):
        read(edit_me)
    edit(edit_me, features=[1])
    with pytest.raises(UserError, match="is not understood"):
        read(edit_me)
    for name in (DATA, "meta/tasks.parquet", "meta/episodes/chunk-000/file-000.parquet"):
        root = damaged("cut" + name.replace("/", "-"))
        (root / name).write_bytes((root / name).read_bytes()[:50])
        with pytest.raises(UserError, match=f"{name} is damaged"):
            read(root)
        (root / name).unlink()
        with pytest.raises(UserError, match=r"is missing|has no parquet file"):
            read(root)
    root = damaged("short")
    pq.write_table(pq.read_table(root / DATA).slice(0, 12), root / DATA)
    with pytest.raises(UserError, match="episode 2: 2 rows, 13 are listed"):
        read(root)
    pq.write_table(pq.read_table(root / DATA).slice(0, 10), root / DATA)
    with pytest.raises(UserError, match=r"the data lack episodes \[2\]"):
        read(root)
    root = damaged("nan")
    change(root, "action", pa.array([[float("nan"), 0]] * 23, pa.list_(pa.float32(), 2)))
    with pytest.raises(UserError, match="episode 0: action holds values that are not finite"):
        read(root)
    change(root, "action", pa.array([[0.0]] * 23, pa.list_(pa.float32())))
    with pytest.raises(UserError, match="action has 8 numbers in 8 rows, not 2 per row"):
        read(root)
    root = damaged("png")
    change(root, "observation.images.front", pa.array([{"bytes": b"no png", "path": "x"}] * 23))
    with pytest.raises(UserError, match=r"observation.images.front has a damaged image"):
        read(root)
    with pytest.raises(UserError, match=r"episodes \[7\] are asked for, there are 0..2"):
        list(open_recording(stored).demonstrations([7]))


def test_damaged_video_is_named(tmp_path: Path, demos: list[Demonstration], spec: RobotSpec) -> None:
    root = tmp_path / "set"
    write_recording(root, demos, spec=spec, tasks=TASKS, images="video")
    path = root / "videos/observation.images.front/chunk-000/file-000.mp4"
    shorter = tmp_path / "short"
    write_recording(shorter, demos[:2], spec=spec, tasks=TASKS, images="video")
    shutil.copy(shorter / path.relative_to(root), path)
    with pytest.raises(UserError, match=r"file-000.mp4 ends after 10 frames, 23 are listed"):
        list(open_recording(root).demonstrations())
    path.write_bytes(b"no video")
    with pytest.raises(UserError, match=r"file-000.mp4 cannot be decoded"):
        list(open_recording(root).demonstrations())
