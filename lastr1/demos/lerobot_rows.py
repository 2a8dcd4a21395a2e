"""Rows of a LeRobotDataset's parquet files, checked.  Every fault is a `UserError` of one line.

Axes: R rows of one episode.
"""

import io
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image as PILImage
from PIL import UnidentifiedImageError

from lastr1.types import Floats, Image, UserError

BATCH = 256  # rows decoded at once


def short(error: Exception) -> str:
    """The first line of what a library says."""
    return str(error).split("\n", 1)[0]


def open_parquet(path: Path) -> pq.ParquetFile:
    """`UserError` when the file is missing or damaged."""
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: fetch or record the dataset again") from error
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} is damaged ({short(error)}): fetch or record the dataset again")


def open_columns(path: Path, columns: list[str]) -> pa.Table:
    """All rows of some columns.  `UserError` when the file is damaged (a column it lacks is left out)."""
    try:
        return open_parquet(path).read(columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def split(path: Path, columns: list[str]) -> Iterator[tuple[int, pa.Table]]:
    """Episode number and rows of every episode in a file, however its row groups are cut.

    Only `columns` are read (one that the file lacks is left out: who needs it will notice).
    """
    parts: list[pa.Table] = []
    current = -1
    file = open_parquet(path)
    try:
        for batch in file.iter_batches(batch_size=BATCH, columns=columns):
            table = pa.Table.from_batches([batch])
            numbers = _column(table, "episode_index", str(path)).to_numpy()
            cuts = [0, *(np.flatnonzero(np.diff(numbers)) + 1), len(numbers)]
            for start, stop in itertools.pairwise(cuts):
                if parts and numbers[start] != current:
                    yield current, pa.concat_tables(parts)
                    parts = []
                current = int(numbers[start])
                parts.append(table.slice(start, stop - start))
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error
    if parts:
        yield current, pa.concat_tables(parts)


def _column(table: pa.Table, key: str, where: str) -> pa.Array:
    if key not in table.column_names:
        raise UserError(f"{where}: the column {key} is missing: fetch or record the dataset again")
    return table[key].combine_chunks()


def vectors(table: pa.Table, key: str, size: int, where: str) -> Floats:
    """A column of vectors as f32 [R, size]; `where` begins the text of the `UserError`."""
    column = _column(table, key, where)
    flat = (column.flatten() if pa.types.is_nested(column.type) else column).to_numpy(zero_copy_only=False)
    if len(flat) != len(table) * size:
        raise UserError(f"{where}: {key} has {len(flat)} numbers in {len(table)} rows, not {size} per row")
    values = np.array(flat, np.float32).reshape(len(table), size)
    if not np.isfinite(values).all():
        raise UserError(f"{where}: {key} holds values that are not finite: leave the episode out")
    return values


def decoded(table: pa.Table, key: str, where: str) -> list[Image]:
    """A column of encoded images as R images [height, width, 3]."""
    images = []
    for entry in _column(table, key, where).to_pylist():
        if entry is None or not entry["bytes"]:
            raise UserError(
                f"{where}: {key} has no image bytes in the parquet file: record with embedded images"
            )
        try:
            images.append(np.asarray(PILImage.open(io.BytesIO(entry["bytes"])).convert("RGB")))
        except (UnidentifiedImageError, OSError) as error:
            raise UserError(f"{where}: {key} has a damaged image ({short(error)}): fetch again") from error
    return images
