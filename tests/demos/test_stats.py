import json
from pathlib import Path

import numpy as np
import pytest

from lastr1.demos.stats import compute, read_statistics
from lastr1.spec import RobotSpec
from lastr1.types import UserError


def test_percentiles_by_hand(spec: RobotSpec) -> None:
    # dx = 0, 1, ..., 200: the 1st percentile lies at position 0.01 * 200 = 2, the 99th at 198;
    # mean 100; variance of 0..n-1 is (n^2 - 1) / 12 = (201^2 - 1) / 12 = 3366.67, its root 58.0230
    ramp = np.arange(201, dtype=np.float32)
    actions = np.stack([ramp, (ramp > 50).astype(np.float32)], 1)
    states = np.random.default_rng(0).normal(size=(205, 3)).astype(np.float32)
    found = compute(actions, states, demonstrations=4, spec=spec)
    assert found.action.q01 == pytest.approx((2.0, 0.0))
    assert found.action.q99 == pytest.approx((198.0, 1.0))
    assert found.action.mean == pytest.approx((100.0, 150 / 201))
    assert found.action.std[0] == pytest.approx(58.02298)
    assert (found.action.min, found.action.max) == ((0.0, 0.0), (200.0, 1.0))
    assert found.action.mask == (True, False)
    assert found.state.mask == (True, True, True)
    assert (found.num_transitions, found.num_trajectories) == (201, 4)
    with pytest.raises(ValueError, match="2] values"):
        compute(actions[:0], states, demonstrations=4, spec=spec)


def test_a_file_reads_back(tmp_path: Path, spec: RobotSpec) -> None:
    rng = np.random.default_rng(1)
    found = compute(
        rng.normal(size=(9, 2)).astype(np.float32),
        rng.normal(size=(10, 3)).astype(np.float32),
        demonstrations=1,
        spec=spec,
    )
    path = tmp_path / "dataset_statistics.json"
    path.write_text(found.to_json("toy"))
    assert read_statistics(path) == found
    raw = json.loads(path.read_text())
    raw["toy"]["action"]["extra"] = [1]
    raw["second"] = {}
    path.write_text(json.dumps(raw))
    assert read_statistics(path) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no statistics file"),
        ("{}", "is no statistics file"),
        ("[1]", "is no statistics file"),
        ('{"a": {"action": {}}}', "lacks the entry 'state'"),
        (
            '{"a": {"action": {}, "state": {}, "num_transitions": 1, "num_trajectories": 1}}',
            "action.q01 must",
        ),
    ],
)
def test_damaged_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "statistics.json"
    with pytest.raises(UserError, match="is missing"):
        read_statistics(path)
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_statistics(path)


def test_lists_of_different_length(tmp_path: Path, spec: RobotSpec) -> None:
    found = compute(np.ones((2, 2), np.float32), np.ones((2, 3), np.float32), demonstrations=1, spec=spec)
    raw = json.loads(found.to_json("toy"))
    raw["toy"]["state"]["mask"].pop()
    path = tmp_path / "statistics.json"
    path.write_text(json.dumps(raw))
    with pytest.raises(UserError, match="lists of state differ in length"):
        read_statistics(path)
