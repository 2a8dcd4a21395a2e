"""Episodes that nobody confirmed as a success are no demonstrations."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lastr1.config import CollectConfig, Config, EnvConfig
from lastr1.demos.dataset import Demonstration
from lastr1.demos.lerobot import open_recording
from lastr1.demos.lerobot_writer import write_recording
from lastr1.spec import RobotSpec
from lastr1.train.run import load_demonstrations
from lastr1.types import UserError

TASKS = ("lift the cube", "open the drawer", "push the button")
DATA = "data/chunk-000/file-000.parquet"
CONFIG = Config(name="toy", env=EnvConfig(suite="tabletop"), collect=CollectConfig(episodes=1))


def recorded(root: Path, demos: list[Demonstration], spec: RobotSpec, *confirmed: bool) -> Path:
    """Tasks 2, 0 and 2."""
    told = [replace(demo, success=success) for demo, success in zip(demos, confirmed, strict=True)]
    write_recording(root, told, spec=spec, tasks=TASKS)
    return root


def without_the_column(root: Path) -> None:
    table = pq.read_table(root / DATA)
    pq.write_table(table.drop_columns(["next.success"]), root / DATA)


def test_the_last_row_counts(tmp_path: Path, demos: list[Demonstration], spec: RobotSpec) -> None:
    root = recorded(tmp_path / "set", demos, spec, True, False, True)
    data = open_recording(root)
    assert data.failures() == {1}
    assert len(list(data.demonstrations())) == 3  # who asks for it still gets it
    without_the_column(root)
    assert data.failures() == set()


def test_a_row_that_does_not_say(tmp_path: Path, demos: list[Demonstration], spec: RobotSpec) -> None:
    root = recorded(tmp_path / "set", demos, spec, True, False, True)
    table = pq.read_table(root / DATA)
    unknown = pa.array([None] * len(table), pa.bool_())
    at = table.column_names.index("next.success")
    pq.write_table(table.set_column(at, "next.success", unknown), root / DATA)
    assert open_recording(root).failures() == set()


def test_failures_do_not_teach(
    tmp_path: Path, demos: list[Demonstration], spec: RobotSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    root = recorded(tmp_path / "set", demos, spec, False, True, True)
    for seed in range(5):  # any of a task's successes may be drawn, and here are 1 and 1
        data = load_demonstrations(replace(CONFIG, seed=seed), root, spec, TASKS)
        assert data.steps.tolist() == [len(demos[1].actions), len(demos[2].actions)]
        assert "1 of 3 episodes end without success: left out" in capsys.readouterr().err
    without_the_column(root)
    two = replace(CONFIG, collect=CollectConfig(episodes=2), env=replace(CONFIG.env, tasks=(2,)))
    assert len(load_demonstrations(two, root, spec, TASKS).tasks) == 2
    assert not capsys.readouterr().err


def test_a_task_of_failures_alone(tmp_path: Path, demos: list[Demonstration], spec: RobotSpec) -> None:
    root = recorded(tmp_path / "set", demos, spec, True, False, True)
    with pytest.raises(UserError, match=r"every episode of 'lift the cube' ends without success: record one"):
        load_demonstrations(CONFIG, root, spec, TASKS)
    others = replace(CONFIG, env=replace(CONFIG.env, tasks=(2,)))
    assert load_demonstrations(others, root, spec, TASKS).tasks.tolist() == [2]
