"""LeRobotDataset v3.0: reading, and the layout that `lerobot_writer` shares.  No dependency on `lerobot`.

A row is one frame with the action that follows it.  A demonstration of H control steps is stored as H + 1
rows, so that its last frame is kept; the action of the last row is padding (the last action once more), and
`next.done`, `next.success`, `next.reward` are set there.  Every dataset is read by that rule: where the last
row of a foreign one holds a real action, it is dropped, because no frame shows what it did.
Axes: R = H + 1 rows of an episode, A action size, S state size.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lastr1.demos.dataset import Demonstration
from lastr1.demos.lerobot_meta import IMAGES
from lastr1.demos.lerobot_rows import decoded, open_columns, open_parquet, short, split, vectors
from lastr1.demos.mp4 import VideoReader
from lastr1.spec import Camera, RobotSpec
from lastr1.types import Floats, Start, UserError

VERSION = "v3.0"
VECTORS = {"state": ("observation.state", "state"), "action": ("action", "actions")}
"""LeRobot's name of a feature, and the one that openpi's converter for LIBERO gave it"""
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
START = "lastr1.start"
"""our own column of `meta/episodes`: the `Start` of an episode as JSON, empty where it is not known"""
SUCCESS = "next.success"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"


@dataclass(frozen=True, kw_only=True)
class RecordedRobot:
    """What a dataset says about its robot."""

    name: str
    rate: float
    """frames per second"""
    cameras: tuple[Camera, ...]
    state: tuple[str, ...]
    """name of each dimension; empty where the dataset gives none"""
    action: tuple[str, ...]

    def mismatches(self, spec: RobotSpec) -> list[str]:
        """Every fact in which the dataset and an environment's robot differ; units are not recorded."""
        found = []
        if self.rate != spec.rate:
            found.append(f"rate: {self.rate:g} in the dataset against {spec.rate:g} control steps per second")
        if set(self.cameras) != set(spec.cameras):
            found.append(f"cameras: {self.cameras} in the dataset against {spec.cameras}")
        for field, names, dims in (("state", self.state, spec.state), ("action", self.action, spec.action)):
            wanted = tuple(dim.name for dim in dims)
            if len(names) != len(wanted) or any(a and a != b for a, b in zip(names, wanted, strict=True)):
                found.append(f"{field}: {names} in the dataset against {wanted}")
        return found


@dataclass(frozen=True, kw_only=True)
class RecordedEpisode:
    """One line of `meta/episodes`."""

    task: int
    """index into `Dataset.tasks`"""
    rows: int
    """H + 1"""
    data: Path
    videos: Mapping[str, tuple[Path, int]]
    """camera -> file and the number of the first frame in it; only cameras stored as video"""
    start: Start | None
    """where the episode began, if the dataset is one of ours"""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """An opened dataset; frames are only read while iterating over `demonstrations`."""

    root: Path
    robot: RecordedRobot
    tasks: tuple[str, ...]
    episodes: tuple[RecordedEpisode, ...]
    features: Mapping[str, str]
    """camera -> name of its feature"""
    vectors: Mapping[str, str]
    """`state` and `action` -> name of the feature"""

    def demonstrations(self, episodes: Collection[int] | None = None) -> Iterator[Demonstration]:
        """The given episodes (default: all) in the order of the dataset, one at a time in memory.

        `UserError` names the file that is damaged, and the field.
        """
        if episodes is not None and not set(episodes) <= set(range(len(self.episodes))):
            raise UserError(
                f"episodes {sorted(episodes)} are asked for, there are 0..{len(self.episodes) - 1}"
            )
        readers = {camera: VideoReader() for camera in self.features}
        missing = set(range(len(self.episodes)) if episodes is None else episodes)
        try:
            for number, table in self._tables(missing.copy()):
                yield self._demonstration(number, table, readers)
                missing.discard(number)
            if missing:
                raise UserError(f"{self.root}: the data lack episodes {sorted(missing)}: fetch it again")
        finally:
            for reader in readers.values():
                reader.close()

    def all_actions(self) -> Floats:
        """[N, A], one row per row of the data files; no picture is read."""
        return self._all("action", len(self.robot.action))

    def all_states(self) -> Floats:
        """[N, S], the rows of `all_actions`."""
        return self._all("state", len(self.robot.state))

    def failures(self) -> frozenset[int]:
        """Episodes whose last row denies success (no demonstrations); none where the dataset does not say."""
        found = set()
        for path in sorted({episode.data for episode in self.episodes}):
            for number, table in split(path, ["episode_index", SUCCESS]):
                if SUCCESS in table.column_names and table[SUCCESS][-1].as_py() is False:
                    found.add(number)
        return frozenset(found)

    def _all(self, name: str, size: int) -> Floats:
        key = self.vectors[name]
        paths = sorted({episode.data for episode in self.episodes})
        return np.concatenate([vectors(open_columns(path, [key]), key, size, str(path)) for path in paths])

    def _tables(self, wanted: Collection[int]) -> Iterator[tuple[int, pa.Table]]:
        needed = ["episode_index", *self.vectors.values(), *self.features.values()]
        for path in dict.fromkeys(e.data for i, e in enumerate(self.episodes) if i in wanted):
            yield from ((number, table) for number, table in split(path, needed) if number in wanted)

    def _demonstration(
        self, number: int, table: pa.Table, readers: Mapping[str, VideoReader]
    ) -> Demonstration:
        episode = self.episodes[number]
        where = f"{episode.data}, episode {number}"
        if len(table) != episode.rows or len(table) < 2:
            raise UserError(
                f"{where}: {len(table)} rows, {episode.rows} are listed (at least 2): fetch it again"
            )
        frames = {}
        for camera in self.robot.cameras:
            if camera.name in episode.videos:
                path, first = episode.videos[camera.name]
                images = readers[camera.name].read(path, first, episode.rows)
            else:
                images = decoded(table, self.features[camera.name], where)
            shapes = {image.shape for image in images}
            if shapes != {(camera.height, camera.width, 3)}:
                raise UserError(
                    f"{where}: camera {camera.name} has frames of {shapes}, info.json says {camera}"
                )
            frames[camera.name] = np.stack(images)
        return Demonstration(
            task=episode.task,
            instruction=self.tasks[episode.task],
            frames=frames,
            states=vectors(table, self.vectors["state"], len(self.robot.state), where),
            actions=vectors(table, self.vectors["action"], len(self.robot.action), where)[:-1],
            start=episode.start,
        )


def open_recording(root: Path) -> Dataset:
    """Read the description of a dataset.  `UserError` names what is missing or not understood."""
    path = root / "meta" / "info.json"
    try:
        info = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: give the folder of a LeRobotDataset {VERSION}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({short(error)}): fetch the dataset again") from error
    try:
        if info["codebase_version"] != VERSION:
            raise UserError(
                f"{path}: codebase_version {info['codebase_version']} is not {VERSION}: convert it with "
                "lerobot (python -m lerobot.datasets.v30.convert_dataset_v21_to_v30 --repo-id=NAME)"
            )
        features = {key: f for key, f in info["features"].items() if _is_camera(f)}
        named = {
            name: next((key for key in keys if key in info["features"]), keys[0])
            for name, keys in VECTORS.items()
        }
        robot = RecordedRobot(
            name=info["robot_type"] or "unknown",
            rate=float(info["fps"]),
            cameras=tuple(_camera(key, feature) for key, feature in features.items()),
            state=_names(info["features"][named["state"]]),
            action=_names(info["features"][named["action"]]),
        )
        videos = [key for key, feature in features.items() if feature["dtype"] == "video"]
        tasks = _tasks(root / "meta" / "tasks.parquet")
        episodes = tuple(
            _episode(root, info, row, tasks, videos)
            for row in _rows(sorted((root / "meta" / "episodes").glob("*/*.parquet")), root)
        )
    except KeyError as error:
        raise UserError(f"{root}: meta has no field {error}: fetch or record it again") from error
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise UserError(f"{root}: meta is not understood ({short(error)}): fetch it again") from error
    return Dataset(
        root=root,
        robot=robot,
        tasks=tasks,
        episodes=episodes,
        features={_camera_name(key): key for key in features},
        vectors=named,
    )


def _is_camera(feature: Mapping[str, Any]) -> bool:
    return feature["dtype"] in ("image", "video") and 3 in (feature["shape"][0], feature["shape"][-1])


def _camera_name(key: str) -> str:
    return key.removeprefix(IMAGES).removeprefix("observation.").removeprefix("images.")


def _camera(key: str, feature: Mapping[str, Any]) -> Camera:
    first, second, third = feature["shape"]
    # Some datasets in circulation list the channels first, whatever their `names` say.
    height, width = (first, second) if third == 3 else (second, third)
    return Camera(name=_camera_name(key), height=height, width=width)


def _names(feature: Mapping[str, Any]) -> tuple[str, ...]:
    """LeRobot allows a list, a dict of lists, one name for the whole vector, or nothing."""
    (size,) = map(int, feature["shape"])
    if "names" not in feature:
        return ("",) * size
    names = feature["names"]
    if isinstance(names, dict):
        names = [name for group in names.values() for name in (group if isinstance(group, list) else [group])]
    return tuple(str(name) for name in names) if names and len(names) == size else ("",) * size


def _rows(paths: list[Path], root: Path) -> Iterator[dict[str, Any]]:
    if not paths:
        raise UserError(f"{root}/meta/episodes has no parquet file: fetch or record the dataset again")
    for path in paths:
        columns = [name for name in open_parquet(path).schema_arrow.names if not name.startswith("stats/")]
        yield from open_columns(path, columns).to_pylist()


def _tasks(path: Path) -> tuple[str, ...]:
    rows = open_parquet(path).read().to_pylist()
    # pandas writes an index without a name under its own name for it.
    named = {row["task_index"]: row["task"] if "task" in row else row["__index_level_0__"] for row in rows}
    return tuple(named[i] for i in range(len(named)))


def _episode(
    root: Path, info: Mapping[str, Any], row: Mapping[str, Any], tasks: tuple[str, ...], videos: list[str]
) -> RecordedEpisode:
    if row["tasks"][0] not in tasks:
        raise UserError(
            f"{root}/meta/tasks.parquet lacks the task {row['tasks'][0]!r}: fetch the dataset again"
        )
    place = {}
    for key in videos:
        prefix = f"videos/{key}/"
        path = info["video_path"].format(
            video_key=key, chunk_index=row[prefix + "chunk_index"], file_index=row[prefix + "file_index"]
        )
        place[_camera_name(key)] = (root / path, round(row[prefix + "from_timestamp"] * info["fps"]))
    data = info["data_path"].format(chunk_index=row["data/chunk_index"], file_index=row["data/file_index"])
    return RecordedEpisode(
        task=tasks.index(row["tasks"][0]),
        rows=row["length"],
        data=root / data,
        videos=place,
        start=_start(row[START]) if START in row else None,
    )


def _start(text: str) -> Start | None:
    if not text:
        return None
    values = json.loads(text)
    return Start(**values | {"placed": tuple(values["placed"])})
