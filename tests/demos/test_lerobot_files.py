"""LeRobotDataset v3.0: what a written dataset consists of."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from lastr1.demos.dataset import Demonstration
from lastr1.demos.lerobot import open_recording
from lastr1.demos.lerobot_writer import write_recording
from lastr1.spec import RobotSpec
from lastr1.types import Start

TASKS = ("lift the cube", "open the drawer", "push the button")
DATA = "data/chunk-000/file-000.parquet"


def test_where_an_episode_began_comes_back(
    tmp_path: Path, demos: list[Demonstration], spec: RobotSpec
) -> None:
    starts = (Start(task=2, state=7), None, Start(task=2, seed=2**31, placed=(0.1, -1e-17)))
    known = [replace(demo, start=start) for demo, start in zip(demos, starts, strict=True)]
    write_recording(tmp_path / "set", known, spec=spec, tasks=TASKS)
    recording = open_recording(tmp_path / "set")
    assert tuple(episode.start for episode in recording.episodes) == starts
    assert tuple(demo.start for demo in recording.demonstrations()) == starts


def test_every_file_and_field_of_a_dataset_with_video(
    tmp_path: Path, demos: list[Demonstration], spec: RobotSpec
) -> None:
    """What LeRobot's own reader of v3.0 looks for."""
    root = tmp_path / "set"
    write_recording(root, demos, spec=spec, tasks=TASKS, images="video")
    front = "observation.images.front"
    assert {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()} == {
        DATA,
        f"videos/{front}/chunk-000/file-000.mp4",
        "videos/observation.images.wrist/chunk-000/file-000.mp4",
        "meta/info.json",
        "meta/stats.json",
        "meta/tasks.parquet",
        "meta/episodes/chunk-000/file-000.parquet",
    }
    info = json.loads((root / "meta/info.json").read_text())
    assert {"codebase_version", "fps", "features", "chunks_size", "robot_type", "splits"} <= set(info)
    assert {"total_episodes", "total_frames", "total_tasks", "data_path", "video_path"} <= set(info)
    columns = set(pq.read_schema(root / "meta/episodes/chunk-000/file-000.parquet").names)
    wanted = {"episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index"}
    wanted |= {"data/chunk_index", "data/file_index"}
    places = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
    wanted |= {f"videos/{front}/{name}" for name in places}
    keys = (front, "observation.state", "action")
    wanted |= {f"stats/{key}/{name}" for key in keys for name in ("min", "max", "mean", "std", "count")}
    assert wanted <= columns
    stored = {
        "observation.state",
        "action",
        "timestamp",
        "frame_index",
        "episode_index",
        "index",
        "task_index",
    }
    stored |= {"next.reward", "next.done", "next.success"}
    assert set(pq.read_schema(root / DATA).names) == stored
    group = pq.ParquetFile(root / DATA).metadata.row_group(0)
    assert group.column(0).compression == "SNAPPY"
    stats = json.loads((root / "meta/stats.json").read_text())
    assert set(stats) == {front, "observation.images.wrist", "observation.state", "action"}
