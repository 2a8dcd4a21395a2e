"""Which start goes to which slot: a change of task makes LIBERO build another scene."""

from collections import deque
from types import SimpleNamespace

from lastr1.envs.base import Start
from lastr1.rollout.collect import Player


def played(starts, slots, length):
    """(slot, start) in the order of beginning; an episode lasts `length` rounds of play."""
    order = []
    pool = SimpleNamespace(send=lambda begin: order.extend(begin.items()))
    player, waiting, running, left = Player(None, pool, slots), deque(enumerate(starts)), {}, {}
    while waiting or running:
        player._fill(waiting, running)
        for slot in list(running):
            left[slot] = left.get(slot, length(running[slot].start)) - 1
            if not left[slot]:
                del running[slot], left[slot]
    assert sorted(starts.index(start) for _, start in order) == list(range(len(starts)))
    return order


def scenes_built(order):
    last, built = {}, []
    for slot, start in order:
        if last.get(slot) != start.task:
            built.append(start.task)
        last[slot] = start.task
    return built


TURNS = [Start(task=task, state=state) for state in range(6) for task in range(4)]


def test_a_slot_keeps_its_task_while_there_is_more_of_it():
    """Four tasks, six states each, in turn or one task after the other: two slots build four scenes."""
    for starts in (TURNS, sorted(TURNS, key=lambda start: start.task)):
        assert sorted(scenes_built(played(starts, 2, lambda _: 1))) == [0, 1, 2, 3]


def test_a_slot_without_work_helps_another_with_its_task():
    """Task 0 takes three times as long: three scenes of it at most, one of each other."""
    built = scenes_built(played(TURNS, 3, lambda start: 3 if start.task == 0 else 1))
    assert sorted(set(built)) == [0, 1, 2, 3]
    assert built.count(0) <= 3
    assert len(built) <= 8  # 24 in turns


def test_one_task_fills_all_slots_in_order():
    starts = [Start(task=0, state=state) for state in range(6)]
    order = played(starts, 3, lambda _: 1)
    assert order == [(i % 3, start) for i, start in enumerate(starts)]
