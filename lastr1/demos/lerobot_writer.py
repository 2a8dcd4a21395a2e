"""LeRobotDataset v3.0: writing.  How a demonstration becomes rows is said in `lerobot`.

Axes: R = H + 1 rows of an episode, A action size, S state size.
"""

import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image as PILImage

from lastr1.demos.dataset import Demonstration
from lastr1.demos.lerobot import DATA_PATH, EPISODES_PATH, START, VERSION, VIDEO_PATH
from lastr1.demos.lerobot_meta import (
    IMAGES,
    features,
    joined,
    pixel_summary,
    schema,
    summary,
    write_json,
    write_tasks,
)
from lastr1.demos.mp4 import DATASET, VideoWriter
from lastr1.demos.stats import compute
from lastr1.spec import RobotSpec
from lastr1.types import Array, UserError

CHUNK = 1000  # files per folder
DATA_MB, VIDEO_MB = 100, 200  # a file that is larger is closed after its episode


def write_recording(
    root: Path,
    demonstrations: Iterable[Demonstration],
    *,
    spec: RobotSpec,
    tasks: tuple[str, ...],
    images: Literal["image", "video"] = "image",
    replace: bool = False,
) -> int:
    """Write demonstrations as they come and return how many; nothing is left behind when that fails.

    `tasks` are all instructions of the environment: `Demonstration.task` is the index among them.
    `images`: lossless PNG inside the data, or mp4 (lossy, even sizes, smaller for large images).
    `UserError` when `root` exists (unless `replace` and it holds a dataset) or there is nothing to write.
    """
    if root.exists() and not replace:
        raise UserError(f"{root} exists: choose another folder, or allow it to be replaced")
    if root.exists() and not (root / "meta" / "info.json").exists():
        raise UserError(f"{root} is no dataset, it will not be replaced: choose another folder")
    with _atomic(root) as folder:
        writer = _Writer(folder, spec=spec, tasks=tasks, images=images)
        try:
            for demonstration in demonstrations:
                writer.add(demonstration)
        finally:
            writer.close()
        if not writer.episodes:
            raise UserError(f"there are no demonstrations to write to {root}")
        writer.describe()
    return len(writer.episodes)


@contextmanager
def _atomic(root: Path) -> Iterator[Path]:
    """A folder beside `root` that takes its place at the end, or vanishes."""
    folder = root.with_name(f".{root.name}.{os.getpid()}.part")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
        if root.exists():
            old = root.with_name(f".{root.name}.{os.getpid()}.old")
            root.rename(old)
            folder.rename(root)
            shutil.rmtree(old)
        else:
            folder.rename(root)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Place:
    """Chunk and file number; moves on when a file is full."""

    def __init__(self, limit_mb: int) -> None:
        self.number = 0
        self._limit = limit_mb * 2**20

    @property
    def indices(self) -> dict[str, int]:
        return {"chunk_index": self.number // CHUNK, "file_index": self.number % CHUNK}

    def advance(self, size: int) -> bool:
        """Whether a file of `size` bytes is full; then the place is the next one."""
        full = size > self._limit
        self.number += full
        return full


class _Video:
    """The mp4 files of one camera, episodes one after the other."""

    def __init__(self, folder: Path, key: str, rate: float) -> None:
        self._folder, self._key, self._rate = folder, key, rate
        self._place = _Place(VIDEO_MB)
        self._writer: VideoWriter | None = None
        self.codec = ""

    @property
    def _path(self) -> Path:
        return self._folder / VIDEO_PATH.format(video_key=self._key, **self._place.indices)

    def add(self, frames: Array) -> dict[str, Any]:
        """Append [R, h, w, 3] and return what `meta/episodes` says about it."""
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _, height, width, _ = frames.shape
            self._writer = VideoWriter(
                self._path, height=height, width=width, rate=self._rate, encoders=DATASET
            )
            self.codec = self._writer.codec
        prefix = f"videos/{self._key}/"
        entry: dict[str, Any] = {prefix + name: value for name, value in self._place.indices.items()}
        entry[prefix + "from_timestamp"] = self._writer.frames / self._rate
        self._writer.add(frames)
        entry[prefix + "to_timestamp"] = self._writer.frames / self._rate
        if self._place.advance(self._writer.bytes):
            self.close()
        return entry

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class _Writer:
    """One dataset in the making."""

    def __init__(self, folder: Path, *, spec: RobotSpec, tasks: tuple[str, ...], images: str) -> None:
        self._folder, self._spec, self._tasks, self._images = folder, spec, tasks, images
        self._place = _Place(DATA_MB)
        self._parquet: pq.ParquetWriter | None = None
        cameras = spec.cameras if images == "video" else ()
        self._videos = {c.name: _Video(folder, IMAGES + c.name, spec.rate) for c in cameras}
        self._rows = 0
        self._actions: list[Array] = []
        self._states: list[Array] = []
        self.episodes: list[dict[str, Any]] = []
        """lines of `meta/episodes`"""

    def add(self, demo: Demonstration) -> None:
        """Append one episode."""
        self._check(demo)
        number, rows = len(self.episodes), len(demo.states)
        entry: dict[str, Any] = {
            "episode_index": number,
            "tasks": [demo.instruction],
            "length": rows,
            **{f"data/{name}": value for name, value in self._place.indices.items()},
            "dataset_from_index": self._rows,
            "dataset_to_index": self._rows + rows,
            **{f"meta/episodes/{name}": 0 for name in ("chunk_index", "file_index")},
            START: "" if demo.start is None else json.dumps(asdict(demo.start)),
        }
        for camera, video in self._videos.items():
            entry |= video.add(demo.frames[camera])
        self._write_rows(self._columns(demo, number))
        summaries = {"observation.state": summary(demo.states), "action": summary(demo.actions)}
        for camera, frames in demo.frames.items():
            summaries[IMAGES + camera] = pixel_summary(frames)
        for key, values in summaries.items():
            entry |= {f"stats/{key}/{name}": value for name, value in values.items()}
        self._rows += rows
        self._actions.append(demo.actions)
        self._states.append(demo.states)
        self.episodes.append(entry)

    def _check(self, demo: Demonstration) -> None:
        spec, number = self._spec, len(self.episodes)
        if not 0 <= demo.task < len(self._tasks) or self._tasks[demo.task] != demo.instruction:
            raise ValueError(
                f"demonstration {number}: {demo.instruction!r} is not task {demo.task} of the list"
            )
        sizes = (demo.states.shape[1], demo.actions.shape[1])
        if sizes != (len(spec.state), len(spec.action)):
            raise ValueError(f"demonstration {number}: {sizes} states and actions do not fit {spec.name}")
        shapes = {camera: frames.shape[1:] for camera, frames in demo.frames.items()}
        if shapes != {c.name: (c.height, c.width, 3) for c in spec.cameras}:
            raise ValueError(f"demonstration {number}: frames {shapes} do not fit {spec.cameras}")

    def _columns(self, demo: Demonstration, number: int) -> dict[str, Any]:
        rows = len(demo.states)
        last = np.arange(rows) == rows - 1
        columns: dict[str, Any] = (
            {} if self._videos else {IMAGES + c: _pngs(f) for c, f in demo.frames.items()}
        )
        return columns | {
            "observation.state": _lists(demo.states),
            "action": _lists(np.concatenate([demo.actions, demo.actions[-1:]])),
            "next.reward": (last & demo.success).astype(np.float32),
            "next.done": last,
            "next.success": last & demo.success,
            "timestamp": (np.arange(rows) / self._spec.rate).astype(np.float32),
            "frame_index": np.arange(rows),
            "episode_index": np.full(rows, number),
            "index": self._rows + np.arange(rows),
            "task_index": np.full(rows, demo.task),
        }

    def _write_rows(self, columns: dict[str, Any]) -> None:
        """One row group per episode."""
        layout = schema(self._spec, self._images)
        path = self._folder / DATA_PATH.format(**self._place.indices)
        if self._parquet is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._parquet = pq.ParquetWriter(path, layout, compression="snappy")
        self._parquet.write_table(pa.table(columns, schema=layout), row_group_size=1 << 30)
        if self._place.advance(path.stat().st_size):
            self._close_rows()

    def _close_rows(self) -> None:
        if self._parquet is not None:
            self._parquet.close()
            self._parquet = None

    def close(self) -> None:
        """Finish the files that are still open."""
        self._close_rows()
        for video in self._videos.values():
            video.close()

    def describe(self) -> None:
        """Write `meta`."""
        meta = self._folder / "meta"
        path = self._folder / EPISODES_PATH.format(chunk_index=0, file_index=0)
        path.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(self.episodes), path, compression="snappy")
        write_tasks(meta / "tasks.parquet", self._tasks)
        write_json(meta / "stats.json", self._statistics())
        codecs = {camera: video.codec for camera, video in self._videos.items()}
        info = {
            "codebase_version": VERSION,
            "robot_type": self._spec.name,
            "total_episodes": len(self.episodes),
            "total_frames": self._rows,
            "total_tasks": len(self._tasks),
            "chunks_size": CHUNK,
            "data_files_size_in_mb": DATA_MB,
            "video_files_size_in_mb": VIDEO_MB,
            "fps": int(self._spec.rate) if self._spec.rate == int(self._spec.rate) else self._spec.rate,
            "splits": {"train": f"0:{len(self.episodes)}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self._videos else None,
            "features": features(self._spec, self._images, codecs),
        }
        write_json(meta / "info.json", info)

    def _statistics(self) -> dict[str, Any]:
        actions, states = np.concatenate(self._actions), np.concatenate(self._states)
        exact = compute(actions, states, demonstrations=len(self.episodes), spec=self._spec)
        vectors = {"action": (exact.action, len(actions)), "observation.state": (exact.state, len(states))}
        out: dict[str, Any] = {}
        for key, (values, count) in vectors.items():
            names = ("min", "max", "mean", "std", "q01", "q99")
            out[key] = {name: asdict(values)[name] for name in names} | {"count": [count]}
        for camera in self._spec.cameras:
            out[IMAGES + camera.name] = joined(self.episodes, f"stats/{IMAGES}{camera.name}/")
        return out


def _lists(vectors: Array) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).ravel())
    size = vectors.shape[1]
    return flat if size == 1 else pa.FixedSizeListArray.from_arrays(flat, size)


def _pngs(frames: Array) -> list[dict[str, Any]]:
    entries = []
    for number, frame in enumerate(frames):
        buffer = io.BytesIO()
        PILImage.fromarray(frame).save(buffer, "PNG", compress_level=3)
        entries.append({"bytes": buffer.getvalue(), "path": f"frame-{number:06d}.png"})
    return entries
