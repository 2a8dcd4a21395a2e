"""Recordings played again: only what succeeds is kept, as our own environment shows it."""

from dataclasses import replace

import numpy as np
import pytest

from lastr1.config import CollectConfig, EnvConfig
from lastr1.demos.lerobot_writer import write_recording
from lastr1.envs import make_env
from lastr1.rollout.replay import regenerated, replay
from lastr1.rollout.scripted import demonstrations
from lastr1.types import UserError

ENV = EnvConfig(suite="tabletop", image=32, workers=0)
PLACE, STACK = 2, 3


@pytest.fixture(scope="module")
def demos():
    found = demonstrations(replace(ENV, tasks=(STACK, PLACE)), CollectConfig(episodes=3), 0)
    return list(found)


@pytest.fixture
def recording(tmp_path, demos):
    """`recording(broken)`: three episodes of two tasks; those whose number is `broken` never grip."""

    def write(broken=()):
        env = make_env(ENV)
        changed = [replace(d, actions=1 - 0 * d.actions) if i in broken else d for i, d in enumerate(demos)]
        write_recording(tmp_path / "set", changed, spec=env.spec, tasks=env.tasks)
        return tmp_path / "set"

    return write


def test_a_replay_shows_what_the_recording_showed(demos):
    env = make_env(ENV)
    for demo in demos[:2]:
        again = replay(env, demo, demo.start)
        assert again.task == demo.task
        assert again.start == demo.start
        for name in ("states", "actions"):
            assert np.array_equal(getattr(again, name), getattr(demo, name))
        assert np.array_equal(again.frames["front"], demo.frames["front"])
    longer = replace(
        demos[0],
        actions=np.concatenate([demos[0].actions] * 2),
        states=np.concatenate([demos[0].states, demos[0].states[1:]]),
        frames={c: np.concatenate([f, f[1:]]) for c, f in demos[0].frames.items()},
    )
    assert len(replay(env, longer, demos[0].start).actions) == len(demos[0].actions)  # success ends it
    assert replay(env, replace(demos[0], actions=1 - 0 * demos[0].actions), demos[0].start) is None
    with pytest.raises(UserError, match="the recorded start does not fit"):
        replay(env, demos[0], replace(demos[0].start, placed=(0.0, 1.0)))


def test_a_failure_is_replaced_by_the_next_one(recording, demos):
    """Episodes 0, 1, 2 stack, 3, 4, 5 place.  With 0 and 2 broken, only 1 is left to show how to stack."""
    path, heard, told = recording(broken=(0, 2)), [], []
    found = list(regenerated(ENV, path, count=1, seed=0, progress=heard.append))
    assert sorted(d.task for d in found) == [PLACE, STACK]
    (stack,) = (d for d in found if d.task == STACK)
    assert np.array_equal(stack.frames["front"], demos[1].frames["front"])
    assert len(heard) == 2
    found = list(regenerated(ENV, path, count=3, seed=0, remark=told.append))
    assert sorted(d.task for d in found) == [PLACE] * 3 + [STACK]
    assert told == [
        "1 of 3 demonstrations of 'stack the blue block on the orange block' succeed when played again"
    ]


def test_the_seed_chooses(recording, demos):
    path = recording()
    chosen = {seed: [d.start.seed for d in regenerated(ENV, path, count=1, seed=seed)] for seed in range(8)}
    assert chosen[0] == [d.start.seed for d in regenerated(ENV, path, count=1, seed=0)]
    assert len({tuple(starts) for starts in chosen.values()}) > 1


def test_what_cannot_be_played_again(recording, demos, tmp_path):
    path = recording(broken=(0, 1, 2))
    with pytest.raises(UserError, match=r"no demonstration of 'stack .*' succeeds when it is played again"):
        list(regenerated(ENV, path, count=1, seed=0))
    assert [d.task for d in regenerated(replace(ENV, tasks=(PLACE,)), path, count=1, seed=0)] == [PLACE]
    with pytest.raises(UserError, match="has no demonstration of task 0: choose other"):
        list(regenerated(replace(ENV, tasks=(0,)), path, count=1, seed=0))
    env = make_env(ENV)
    unknown = [replace(d, start=None) for d in demos]
    write_recording(tmp_path / "unknown", unknown, spec=env.spec, tasks=env.tasks)
    with pytest.raises(UserError, match="nobody recorded where episode"):
        list(regenerated(ENV, tmp_path / "unknown", count=1, seed=0))
