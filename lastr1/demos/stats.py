"""Statistics of demonstrations: the ranges that actions are normalised by (ALGORITHM.md 2.9, 2.11).

Axes: N control steps of all demonstrations, M frames of all demonstrations, A action size, S state size.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from lastr1.spec import RobotSpec
from lastr1.types import Floats, UserError


@dataclass(frozen=True, kw_only=True)
class VectorStatistics:
    """One number per dimension, in robot units."""

    q01: tuple[float, ...]
    """1st percentile, interpolated linearly"""
    q99: tuple[float, ...]
    """99th percentile"""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """population standard deviation"""
    min: tuple[float, ...]
    max: tuple[float, ...]
    mask: tuple[bool, ...]
    """True: to be normalised by the percentiles; False: binary (a gripper), used as it is"""


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What a policy has to know about the data that it was taught with."""

    action: VectorStatistics
    state: VectorStatistics
    num_transitions: int
    """N, control steps"""
    num_trajectories: int
    """demonstrations"""

    def to_json(self, dataset: str) -> str:
        """The text of a `dataset_statistics.json` (ALGORITHM.md 2.11)."""
        return json.dumps({dataset: asdict(self)}, indent=2) + "\n"


def compute(actions: Floats, states: Floats, *, demonstrations: int, spec: RobotSpec) -> Statistics:
    """Statistics of all actions [N, A] and all states [M, S] of the demonstrations of one robot."""
    return Statistics(
        action=_vector(actions, tuple(not dim.binary for dim in spec.action)),
        state=_vector(states, tuple(not dim.binary for dim in spec.state)),
        num_transitions=len(actions),
        num_trajectories=demonstrations,
    )


def read_statistics(path: Path) -> Statistics:
    """Our own files and those of the released checkpoints: the first top-level entry counts, extra keys may
    be there.  `UserError` names the file and what is wrong with it.
    """
    try:
        first = next(iter(json.loads(path.read_text()).values()))
        parts = {name: first[name] for name in ("action", "state", "num_transitions", "num_trajectories")}
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: point to a dataset_statistics.json") from error
    except (json.JSONDecodeError, AttributeError, StopIteration, TypeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no statistics file (a JSON object of datasets is expected)") from error
    except KeyError as error:
        raise UserError(f"{path} lacks the entry {error}: write it again with this program") from error
    return Statistics(
        action=_read_vector(path, "action", parts["action"]),
        state=_read_vector(path, "state", parts["state"]),
        num_transitions=int(parts["num_transitions"]),
        num_trajectories=int(parts["num_trajectories"]),
    )


def _vector(values: Floats, mask: tuple[bool, ...]) -> VectorStatistics:
    if values.ndim != 2 or not len(values) or values.shape[1] != len(mask):
        raise ValueError(f"statistics need [N >= 1, {len(mask)}] values, not {values.shape}")
    wide = values.astype(np.float64)
    low, high = np.quantile(wide, [0.01, 0.99], axis=0)
    return VectorStatistics(
        q01=tuple(low.tolist()),
        q99=tuple(high.tolist()),
        mean=tuple(wide.mean(0).tolist()),
        std=tuple(wide.std(0).tolist()),
        min=tuple(wide.min(0).tolist()),
        max=tuple(wide.max(0).tolist()),
        mask=mask,
    )


def _read_vector(path: Path, name: str, entry: Mapping[str, Any]) -> VectorStatistics:
    columns: dict[str, tuple[Any, ...]] = {}
    for field in fields(VectorStatistics):
        kind = bool if field.name == "mask" else float
        try:
            columns[field.name] = tuple(kind(value) for value in entry[field.name])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path}: {name}.{field.name} must be a list of one {kind.__name__} per dimension"
            ) from error
    sizes = {field: len(column) for field, column in columns.items()}
    if len(set(sizes.values())) != 1:
        raise UserError(f"{path}: the lists of {name} differ in length ({sizes}): write the file again")
    return VectorStatistics(**columns)
