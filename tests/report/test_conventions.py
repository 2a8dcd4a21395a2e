"""`lastr1 doctor --demo`: a good recording passes, each broken convention has a line of its own."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lastr1.cli import main
from lastr1.config import CollectConfig, EnvConfig
from lastr1.demos.dataset import Demonstration
from lastr1.demos.lerobot_writer import write_recording
from lastr1.demos.stats import compute
from lastr1.envs import make_env
from lastr1.report.conventions import _gripper, check_demo
from lastr1.rollout.scripted import demonstrations
from lastr1.types import UserError

ENV = EnvConfig(suite="tabletop", image=48, workers=0)
IN_BIN = 2
"""put a block in a bin: the gripper has to close and to open"""


@pytest.fixture(scope="module")
def demos():
    return list(demonstrations(replace(ENV, tasks=(0, IN_BIN)), CollectConfig(), 0))


@pytest.fixture
def stored(tmp_path, demos):
    """`stored(change)`: a recording of the two episodes, each changed by `change`."""

    def write(change=lambda demo: demo, name="set"):
        env = make_env(ENV)
        write_recording(tmp_path / name, map(change, demos), spec=env.spec, tasks=env.tasks)
        return tmp_path / name

    return write


def marked(lines, mark="FIX"):
    """Names of the facts with that mark."""
    return [line.split()[1] for line in lines if line.startswith(mark)]


def test_a_good_recording_passes(stored, capsys):
    assert main(["doctor", "--demo", str(stored())]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in out[:-1]] == [
        "recording", "replay", "fingers", "state", "pictures", "statistics",
    ]  # fmt: skip
    assert marked(out) == marked(out, "note") == []
    assert "is solved after" in out[1]
    assert "gripper: fingers" in out[2]  # an episode that grips was chosen
    assert "0.000 m from the replay's" in out[3]
    assert "and still solve the task" in out[5]
    assert out[-1] == "the recording keeps our conventions"


def test_a_flipped_gripper(stored, capsys):
    def flip(demo):
        return replace(demo, actions=demo.actions * [1, 1, 1, -1] + np.float32([0, 0, 0, 1]))

    path = stored(lambda demo: replace(flip(demo), actions=flip(demo).actions.astype(np.float32)))
    with pytest.raises(SystemExit) as end:
        main(["doctor", "--demo", str(path)])
    assert end.value.code == 1
    out = capsys.readouterr().out.splitlines()
    assert marked(out) == ["replay", "gripper", "fingers"]
    assert "the other way round it succeeds" in "".join(out)
    assert out[-1].startswith("do not train on it")


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        ((slice(None), slice(None, None, -1), slice(None, None, -1)), "when turned by 180 degrees"),
        ((slice(None), slice(None, None, -1)), "when upside down"),
        ((slice(None), slice(None), slice(None, None, -1)), "when mirrored"),
    ],
)
def test_pictures_that_are_not_upright(stored, turn, words):
    path = stored(lambda demo: replace(demo, frames={"front": demo.frames["front"][turn]}))
    lines, healthy = check_demo(path, ENV, None)
    assert not healthy
    assert marked(lines) == ["pictures"]
    assert words in lines[4]


@pytest.mark.parametrize(("scale", "shift"), [(0.3, 0.0), (1.0, 0.5), (5.0, 0.0)])
def test_statistics_of_other_data(stored, tmp_path, demos, scale, shift):
    """Too narrow, beside the data, too wide: in the recording's own file, or in the policy's."""
    path = stored()
    written = path / "meta/stats.json"
    stats = json.loads(written.read_text())
    for name in ("q01", "q99"):
        stats["action"][name] = [scale * x + shift for x in stats["action"][name]]
    written.write_text(json.dumps(stats))
    lines, healthy = check_demo(path, ENV, None)
    assert not healthy
    assert marked(lines) == ["statistics"]
    assert "statistics of other data" in lines[-2]

    spec = make_env(ENV).spec
    actions, states = (np.concatenate([vars(d)[k] for d in demos]) for k in ("actions", "states"))
    policy = tmp_path / "policy"
    policy.mkdir()
    for wrong in (False, True):
        seen = actions * scale + shift if wrong else actions
        own = compute(seen.astype(np.float32), states, demonstrations=2, spec=spec)
        (policy / "dataset_statistics.json").write_text(own.to_json("set"))
        lines, healthy = check_demo(path, ENV, policy)
        assert healthy is not wrong
        assert "dataset_statistics.json" in lines[-2]


def test_a_recording_that_does_not_say_where_it_began(stored):
    lines, healthy = check_demo(stored(lambda demo: replace(demo, start=None)), ENV, None)
    assert healthy
    assert marked(lines, "note") == ["replay"]
    assert "does not say where its episodes began" in lines[1]


def test_statistics_that_are_not_there(stored):
    """Older datasets have no percentiles: those of the actions are taken.  Damage is named."""
    path = stored()
    written = path / "meta/stats.json"
    written.write_text(json.dumps({"action": {"mean": [0]}}))
    lines, healthy = check_demo(path, ENV, None)
    assert healthy
    assert "the recording's percentiles: actions change by 0." in lines[-2]
    for damage in ("{", "{}", "[1]", '{"action": {"q01": [0, 0, 0, 0]}}'):
        written.write_text(damage)
        with pytest.raises(UserError, match=r"stats.json has no statistics of actions"):
            check_demo(path, ENV, None)


def test_the_suite_is_that_of_the_episodes(tmp_path, demos):
    """A task that is listed, but that no episode shows, does not choose it; a final stop does not matter."""
    spec, (base, *_) = make_env(ENV).spec, make_env(replace(ENV, suite="tabletop_base")).tasks
    tasks = (base, f"{demos[1].instruction.capitalize()}.")
    write_recording(
        tmp_path / "set", [replace(demos[1], task=1, instruction=tasks[1])], spec=spec, tasks=tasks
    )
    lines, healthy = check_demo(tmp_path / "set", replace(ENV, suite="tabletop_base"), None)
    assert healthy
    assert "1 episodes, 1 of tabletop" in lines[0]
    assert marked(lines, "note") == []


def test_a_recording_without_pictures(stored):
    path = stored()
    info = json.loads((path / "meta/info.json").read_text())
    del info["features"]["observation.images.front"]
    (path / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match="has no pictures"):
        check_demo(path, ENV, None)


def test_a_recording_of_something_else(stored):
    path = stored()
    info = json.loads((path / "meta/info.json").read_text())
    (path / "meta/info.json").write_text(json.dumps(info | {"robot_type": "tabletop", "fps": 7}))
    with pytest.raises(UserError, match="does not fit tabletop: rate: 7"):
        check_demo(path, ENV, None)


def test_both_grippers_are_looked_at():
    """The left one follows its label, the right one does the opposite."""
    spec = make_env(replace(ENV, suite="tabletop_dual")).spec
    opened = np.float32([1, 1, 0, 0])
    states, actions = np.zeros((5, 8), np.float32), np.zeros((4, 8), np.float32)
    actions[:, 3] = actions[:, 7] = opened
    states[1:, 3], states[1:, 7] = opened, 1 - opened
    demo = Demonstration(task=0, instruction="", frames={}, states=states, actions=actions)
    left, right = _gripper(spec, demo)
    assert (left.fix, right.fix) == ("", "flipped: store 1 for open and 0 for closed")
    assert right.vital
