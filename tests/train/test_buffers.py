"""Transitions on disk: whole or absent, whatever happens to whoever writes them."""

import os
import signal
from dataclasses import fields, replace

import numpy as np
import pytest

from lastr1.train import buffers
from lastr1.train.buffers import (
    Buffers,
    Place,
    Transition,
    discard_episode,
    next_episode,
    read_all,
    read_transition,
    write_into,
    write_transition,
)
from lastr1.types import UserError


def transition(number=0, *, human=False):
    rng = np.random.default_rng(number)
    return Transition(
        instruction="push it",
        task=3,
        pixels=rng.integers(0, 256, (1, 4, 4, 3), dtype=np.uint8),
        state=rng.random(2, dtype=np.float32),
        actions=rng.random((3, 2), dtype=np.float32),
        steps=2,
        reward=float(number),
        terminated=True,
        truncated=False,
        success=True,
        next_pixels=rng.integers(0, 256, (1, 4, 4, 3), dtype=np.uint8),
        next_state=rng.random(2, dtype=np.float32),
        is_intervention=human,
        teleop_action=rng.random((3, 2), dtype=np.float32),
        takeover=human,
        version=7,
    )


def same(a, b):
    for field in fields(Transition):
        left, right = vars(a)[field.name], vars(b)[field.name]
        np.testing.assert_array_equal(left, right, err_msg=field.name)
        assert type(left) is type(right), field.name


def test_round_trip(tmp_path):
    for human, folder in ((False, "autonomous"), (True, "intervention")):
        path = write_transition(tmp_path, Place(episode=12, index=3), transition(5, human=human))
        assert path == tmp_path / "transitions" / folder / "000012_0003.npz"
        same(read_transition(path), transition(5, human=human))
    assert next_episode(tmp_path) == 13
    assert next_episode(tmp_path / "elsewhere") == 0


def test_refresh_reports_what_is_new_in_the_order_it_was_played(tmp_path):
    found = Buffers(tmp_path)
    assert found.refresh() == []
    for index in range(4):
        write_transition(tmp_path, Place(episode=1, index=index), transition(index, human=index in (1, 2)))
    rows = read_all(found.refresh())
    assert [(episode, row.reward) for episode, row in rows] == [(1, 0.0), (1, 1.0), (1, 2.0), (1, 3.0)]
    assert found.refresh() == []
    assert len(found) == 4


def test_a_batch_has_as_many_of_either_stream(tmp_path):
    for index in range(9):
        write_transition(tmp_path, Place(episode=0, index=index), transition(index, human=index == 4))
    found = Buffers(tmp_path)
    found.refresh()
    batch = found.draw(64, np.random.default_rng(0))
    assert batch.is_intervention.sum() == 64
    assert len(batch.reward) == 128
    assert set(batch.reward[batch.is_intervention]) == {4.0}
    assert set(batch.reward[~batch.is_intervention]) == set(range(9)) - {4}
    again = found.draw(64, np.random.default_rng(0))
    np.testing.assert_array_equal(again.reward, batch.reward)


def test_demonstrations_are_drawn_with_interventions_and_are_no_part_of_the_run(tmp_path):
    write_into(
        tmp_path / "transitions" / "demonstration", Place(episode=0, index=0), transition(1, human=True)
    )
    write_transition(tmp_path, Place(episode=0, index=0), transition(2, human=True))
    found = Buffers(tmp_path)
    assert [row.reward for _, row in read_all(found.refresh())] == [2.0]
    assert len(found) == 1
    assert set(found.draw(16, np.random.default_rng(0)).reward) == {1.0, 2.0}


def test_few_interventions_do_not_drown_among_demonstrations(tmp_path):
    for index in range(40):
        folder = tmp_path / "transitions" / "demonstration"
        write_into(folder, Place(episode=0, index=index), transition(1, human=True))
    write_transition(tmp_path, Place(episode=0, index=0), transition(2, human=True))
    found = Buffers(tmp_path)
    found.refresh()
    rewards = found.draw(200, np.random.default_rng(0)).reward
    assert 80 < (rewards == 2.0).sum() < 120  # 4.9 of 200 if all files were alike


def test_an_empty_stream_gives_none(tmp_path):
    write_transition(tmp_path, Place(episode=0, index=0), transition())
    found = Buffers(tmp_path)
    found.refresh()
    batch = found.draw(4, np.random.default_rng(0))
    assert not batch.is_intervention.any()
    assert len(batch.reward) == 4


def test_a_discarded_episode_is_gone_also_from_a_buffer_that_knew_it(tmp_path):
    for index in range(2):
        write_transition(tmp_path, Place(episode=0, index=index), transition(index, human=bool(index)))
        write_transition(tmp_path, Place(episode=1, index=index), transition(9, human=bool(index)))
    found = Buffers(tmp_path)
    new = found.refresh()
    discard_episode(tmp_path, 0)
    assert set(found.draw(8, np.random.default_rng(0)).reward) == {9.0}
    assert {row.reward for _, row in read_all(new)} == {9.0}


def test_what_was_discarded_since_the_last_look_leaves_the_rest_to_be_drawn_and_counted(tmp_path):
    """Of a person's there was that episode alone; what came meanwhile is new at the next look."""
    write_transition(tmp_path, Place(episode=0, index=0), transition(1, human=True))
    write_transition(tmp_path, Place(episode=1, index=0), transition(2))
    found = Buffers(tmp_path)
    found.refresh()
    discard_episode(tmp_path, 0)
    write_transition(tmp_path, Place(episode=2, index=0), transition(3))
    assert set(found.draw(4, np.random.default_rng(0)).reward) == {2.0}
    assert [row.reward for _, row in read_all(found.refresh())] == [3.0]


def test_damage_is_named_and_objects_are_refused(tmp_path):
    path = write_transition(tmp_path, Place(episode=0, index=0), transition())
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"000000_0000\.npz is damaged"):
        read_transition(path)
    np.savez(path, **{**vars(transition()), "state": np.array([{}], dtype=object)})
    with pytest.raises(UserError, match="is damaged"):
        read_transition(path)


@pytest.mark.parametrize("moment", ["while writing", "before the rename", "after the rename"])
def test_nothing_is_lost_when_the_writer_is_killed(tmp_path, moment):
    """A child writes five transitions and dies in the sixth; all that it had written are there, whole."""
    done, told = os.pipe()
    child = os.fork()
    if child == 0:
        for number in range(5):
            write_transition(tmp_path, Place(episode=0, index=number), transition(number))
            os.write(told, b"x")
        _die(moment)
        write_transition(tmp_path, Place(episode=0, index=5), transition(5))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    acknowledged = len(os.read(done, 100))
    found = Buffers(tmp_path)
    rows = read_all(found.refresh())
    assert acknowledged == 5
    assert len(rows) == (6 if moment == "after the rename" else 5)
    for number, (_, row) in enumerate(rows):
        same(row, transition(number))
    # and the next writer goes on beside the remains
    write_transition(tmp_path, Place(episode=0, index=5), transition(5))
    found.refresh()
    assert len(found) == 6


def _die(moment):
    def kill(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    rename = os.replace
    if moment == "while writing":
        buffers.np.savez = lambda file, **_: (file.write(b"PK half"), file.flush(), kill())
    elif moment == "before the rename":
        buffers.sync = kill
    else:
        buffers.os.replace = lambda a, b: (rename(a, b), kill())


def test_a_transition_knows_only_numbers_and_text():
    """What would need a pickle to be stored cannot be one."""
    for value in vars(replace(transition(), task=1)).values():
        assert np.asarray(value).dtype != object
