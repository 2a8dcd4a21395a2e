"""What a LeRobotDataset v3.0 says about itself: schema, features, tasks, statistics."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lastr1.spec import RobotSpec
from lastr1.types import Array

IMAGES = "observation.images."
PIXEL_FRAMES = 16  # frames of an episode that the pixel statistics look at
CODEC_NAMES = {"libsvtav1": "av1", "libx264": "h264", "mpeg4": "mpeg4"}
PNG = pa.struct({"bytes": pa.binary(), "path": pa.string()})
SCALARS = {
    "next.reward": ("float32", pa.float32()),
    "next.done": ("bool", pa.bool_()),
    "next.success": ("bool", pa.bool_()),
    "timestamp": ("float32", pa.float32()),
    "frame_index": ("int64", pa.int64()),
    "episode_index": ("int64", pa.int64()),
    "index": ("int64", pa.int64()),
    "task_index": ("int64", pa.int64()),
}


def schema(spec: RobotSpec, images: str) -> pa.Schema:
    """Columns of the data files; images that are stored as video have none."""
    fields = [(IMAGES + camera.name, PNG) for camera in spec.cameras if images == "image"]
    fields += [("observation.state", vector(len(spec.state))), ("action", vector(len(spec.action)))]
    fields += [(name, arrow) for name, (_, arrow) in SCALARS.items()]
    return pa.schema(fields)


def vector(size: int) -> pa.DataType:
    """LeRobot stores a vector of one number as that number."""
    return pa.float32() if size == 1 else pa.list_(pa.float32(), size)


def features(spec: RobotSpec, images: str, codecs: Mapping[str, str]) -> dict[str, Any]:
    """The entry `features` of info.json; `codecs`: camera -> encoder, where images are stored as video."""
    found: dict[str, Any] = {}
    for camera in spec.cameras:
        shape = [camera.height, camera.width, 3]
        entry: dict[str, Any] = {"dtype": images, "shape": shape, "names": ["height", "width", "channels"]}
        if images == "video":
            entry["info"] = {
                "video.height": camera.height,
                "video.width": camera.width,
                "video.codec": CODEC_NAMES[codecs[camera.name]],
                "video.pix_fmt": "yuv420p",
                "video.is_depth_map": False,
                "video.fps": spec.rate,
                "video.channels": 3,
                "has_audio": False,
            }
        found[IMAGES + camera.name] = entry
    for key, dims in (("observation.state", spec.state), ("action", spec.action)):
        names = [dim.name for dim in dims]
        found[key] = {"dtype": "float32", "shape": [len(dims)], "names": names}
    for key, (dtype, _) in SCALARS.items():
        found[key] = {"dtype": dtype, "shape": [1], "names": None}
    return found


def write_tasks(path: Path, tasks: tuple[str, ...]) -> None:
    """A table that pandas reads as: index `task`, column `task_index`."""
    column = {"field_name": "task_index", "name": "task_index", "metadata": None}
    column |= {"pandas_type": "int64", "numpy_type": "int64"}
    index = {"field_name": "task", "name": "task", "metadata": None}
    index |= {"pandas_type": "unicode", "numpy_type": "object"}
    pandas = {"index_columns": ["task"], "column_indexes": [], "columns": [column, index]}
    table = pa.table({"task_index": np.arange(len(tasks)), "task": list(tasks)})
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(pandas)}), path)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Indented, so that people read it."""
    path.write_text(json.dumps(value, indent=4) + "\n")


def summary(values: Array) -> dict[str, list[Any]]:
    """Statistics over rows, one number per dimension."""
    wide = values.astype(np.float64)
    parts = {"min": wide.min(0), "max": wide.max(0), "mean": wide.mean(0), "std": wide.std(0)}
    return {name: part.tolist() for name, part in parts.items()} | {"count": [len(values)]}


def pixel_summary(frames: Array) -> dict[str, list[Any]]:
    """Statistics of some frames, in [0, 1] and of shape [3, 1, 1], as LeRobot wants them."""
    chosen = frames[np.unique(np.linspace(0, len(frames) - 1, PIXEL_FRAMES).astype(int))]
    values = np.arange(256) / 255
    parts: dict[str, list[Any]] = {name: [] for name in ("min", "max", "mean", "std")}
    for channel in range(3):  # a histogram is many times faster than moments of the pixels
        share = np.bincount(chosen[..., channel].ravel(), minlength=256) / chosen[..., channel].size
        mean = share @ values
        found = {"min": values[share > 0][0], "max": values[share > 0][-1], "mean": mean}
        found["std"] = np.sqrt(share @ (values - mean) ** 2)
        for name, value in found.items():
            parts[name].append([[float(value)]])
    return parts | {"count": [len(chosen)]}


def joined(episodes: list[dict[str, Any]], prefix: str) -> dict[str, list[Any]]:
    """Statistics of all episodes from those of each (the variance is within plus between them)."""
    part = {name: np.array([e[prefix + name] for e in episodes]) for name in ("min", "max", "mean", "std")}
    count = np.array([e[prefix + "count"][0] for e in episodes])
    mean = np.average(part["mean"], axis=0, weights=count)
    variance = np.average(part["std"] ** 2 + (part["mean"] - mean) ** 2, axis=0, weights=count)
    total = {"min": part["min"].min(0), "max": part["max"].max(0), "mean": mean, "std": np.sqrt(variance)}
    return {name: value.tolist() for name, value in total.items()} | {"count": [int(count.sum())]}
