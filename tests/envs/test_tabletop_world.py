"""The physics and the goals of the embedded world, worked by hand."""

import numpy as np
import pytest

from lastr1.envs.base import Start
from lastr1.envs.tabletop_tasks import SUITES, Task, scene, solved
from lastr1.envs.tabletop_things import TRAY, Arm, Body, Spot, overlap
from lastr1.envs.tabletop_world import World

OPEN, CLOSE = 1.0, 0.0
STILL_OPEN, STILL_CLOSED = (0.0, 0.0, 0.0, OPEN), (0.0, 0.0, 0.0, CLOSE)


def task(kind, goal="", color="red"):
    return Task(kind=kind, color=color, goal=goal)


def block(color, x, y=0.0, z=0.0):
    return Body(color=color, at=[x, y, z])


def arm(x, y=0.0, z=0.02, opened=1.0, reach=(-0.25, 0.25)):
    return Arm(at=[x, y, z], reach=reach, open=opened, command=opened > 0.5)


def world(*bodies, arms=None, **places):
    return World(bodies=list(bodies), arms=arms or [arm(0.0, 0.0, 0.2)], **places)


def play(w, *actions):
    for action in actions:
        w.step(action)
    return w


# Grasping


@pytest.mark.parametrize(
    ("dx", "dy", "z", "held"),
    [
        (0.0, 0.0, 0.02, True),
        (0.019, 0.0, 0.02, True),  # the fingers are 8 cm apart, the block is 4 cm wide: 2 cm to either side
        (-0.019, 0.016, 0.001, True),
        (0.0, 0.018, 0.02, False),  # 1.7 cm is the most along y
        (0.0, 0.0, 0.039, True),
        (0.0, 0.0, 0.041, False),  # the tip is above the block
    ],
)
def test_fingers_grip_what_is_between_them_and_centre_it(dx, dy, z, held):
    w = play(world(block("red", dx, dy), arms=[arm(0.0, 0.0, z)]), *[STILL_CLOSED] * 3)
    gripper, body = w.arms[0], w.bodies[0]
    assert (gripper.held is body) == held
    if held:
        assert body.at[0] == pytest.approx(0.0, abs=1e-9)
        assert body.at[1] == dy
        assert gripper.open == pytest.approx(0.5)  # 4 of 8 cm
        w.step((0.0, 1.0, 1.0, CLOSE))
        assert body.at == pytest.approx([0.0, dy + 0.03, 0.03], abs=1e-9)


def test_empty_fingers_close_in_three_control_steps():
    w = world(block("red", 0.2), arms=[arm(0.0, 0.0, 0.1)])
    opened = []
    for _ in range(3):
        w.step(STILL_CLOSED)
        opened.append(w.arms[0].open)
    assert opened == pytest.approx([2 / 3, 1 / 3, 0.0], abs=1e-9)


def test_an_ambiguous_gripper_command_keeps_the_last_one():
    w = play(world(block("red", 0.0), arms=[arm(0.0)]), *[STILL_CLOSED] * 2)
    play(w, *[(0.0, 0.0, 0.5, 0.5)] * 4)
    assert w.arms[0].held is w.bodies[0]
    assert w.bodies[0].at[2] == pytest.approx(0.06)


def test_a_finger_on_a_block_stops_the_descent():
    # The right finger spans 4 to 5 cm right of the tip; the block 2 cm to either side of its middle.
    over, beside = world(block("red", 0.021)), world(block("red", 0.019))
    for w in (over, beside):
        play(w, *[(0.0, 0.0, -1.0, OPEN)] * 8)
    assert over.arms[0].at[2] == pytest.approx(0.04)
    assert beside.arms[0].at[2] == 0.0


def test_fingers_at_the_edge_of_the_table_do_not_close_through_a_block():
    w = play(world(block("red", 0.23), arms=[arm(0.246)]), STILL_CLOSED)
    assert w.bodies[0].at[0] == 0.23  # its right face is at the edge: it cannot be centred
    assert w.arms[0].open == pytest.approx((0.016 + 0.02) / 0.04)


def test_a_carried_block_stops_on_the_wall_of_a_bin():
    w = play(world(block("red", 0.0), arms=[arm(0.0)]), *[STILL_CLOSED] * 2, (0.0, 0.0, 1.0, CLOSE))
    w = World(bodies=w.bodies, arms=w.arms, bins=(Spot(color="blue", x=0.05, y=0.0),))
    w.step((0.0, 0.0, -1.0, CLOSE))
    assert w.bodies[0].at[2] == pytest.approx(0.025)


# Falling


def test_a_block_let_go_falls_to_the_table_at_once():
    w = play(world(block("red", 0.0), arms=[arm(0.0)]), *[STILL_CLOSED] * 2, *[(0.0, 0.0, 1.0, CLOSE)] * 3)
    assert w.bodies[0].at[2] == pytest.approx(0.09)
    w.step(STILL_OPEN)
    assert w.bodies[0].at == pytest.approx([0.0, 0.0, 0.0], abs=1e-9)


@pytest.mark.parametrize(
    ("off", "lands"),
    [(0.023, [0.023, 0.0, 0.04]), (0.025, [0.04, 0.0, 0.0]), (-0.025, [-0.04, 0.0, 0.0])],
)
def test_a_block_rests_on_another_up_to_six_tenths_of_a_side_off_its_middle(off, lands):
    w = play(world(block("red", off, 0.0, 0.1), block("blue", 0.0)), STILL_OPEN)
    assert w.bodies[0].at == pytest.approx(lands, abs=1e-5)
    assert w.bodies[1].at == [0.0, 0.0, 0.0]


def test_a_block_pulled_from_under_another_lets_it_fall():
    w = world(block("red", 0.0, 0.0, 0.04), block("blue", 0.0), arms=[arm(-0.04, 0.0, 0.01, opened=0.0)])
    w.arms[0].at[2] = 0.0
    w.bodies[0].at[0] = 0.011  # its left face is out of the way of the fingers for one push
    play(w, (1.0, 0.0, 0.0, CLOSE), (1.0, 0.0, 0.0, CLOSE))
    assert w.bodies[1].at[0] > 0.02
    assert not any(overlap(a, b) and a[2] == b[2] for a in w.bodies[0].boxes() for b in w.bodies[1].boxes())


def test_a_block_over_a_bin_falls_inside_and_one_over_the_outer_wall_beside():
    bins = (Spot(color="blue", x=0.0, y=0.0),)
    w = play(world(block("red", 0.045, 0.0, 0.1), block("green", 0.0, 0.054, 0.1), bins=bins), STILL_OPEN)
    # The inner half side is 5 cm, so a block's middle is at most 3 cm off.
    assert w.bodies[0].at == pytest.approx([0.03, 0.0, 0.003], abs=1e-5)
    assert w.bodies[1].at == pytest.approx([0.0, 0.075, 0.0], abs=1e-5)


def test_random_play_never_pushes_a_block_into_another_one_or_into_a_wall():
    rng = np.random.default_rng(0)
    touched = 0
    for seed in range(12):
        w = scene(SUITES["tabletop"][2], Start(task=2, seed=seed))
        before = [list(b.at) for b in w.bodies]
        for step in range(80):
            if step % 10 == 0:
                drift = rng.uniform(-1, 1, 4) - [0.0, 0.0, 0.6, 0.0]
            w.step(np.clip(drift + 0.4 * rng.standard_normal(4), [-1, -1, -1, 0], 1).tolist())
            boxes = [b.boxes()[0] for b in w.bodies]
            for i, a in enumerate(boxes):
                for b in boxes[i + 1 :] + w.walls:
                    assert not overlap(a, b) or a[2] >= b[5] - 1e-5 or b[2] >= a[5] - 1e-5
        touched += before != [b.at for b in w.bodies]
    assert touched > 3


# Pushing


def test_closed_fingers_push_a_block_and_the_next_one():
    # The closed fingers reach 1 cm right of the tip: from -5 cm they meet the block's left face after 2 cm.
    w = world(block("red", 0.0), block("blue", 0.045), arms=[arm(-0.05, opened=0.0)])
    w.step((1.0, 0.0, 0.0, CLOSE))
    assert [b.at[0] for b in w.bodies] == pytest.approx([0.01, 0.05])
    assert w.arms[0].at[0] == pytest.approx(-0.02)


def test_the_edge_of_the_table_and_a_bin_stop_the_fingers_with_the_block():
    bins = (Spot(color="blue", x=-0.1, y=0.1),)
    w = world(block("red", 0.22), arms=[arm(0.18, opened=0.0)], bins=bins)
    w.step((1.0, 0.0, 0.0, CLOSE))
    assert w.bodies[0].at[0] == pytest.approx(0.23)
    assert w.arms[0].at[0] == pytest.approx(0.2)
    w = world(block("red", -0.1, 0.02), arms=[arm(-0.1, -0.02, opened=0.0)], bins=bins)
    w.step((0.0, 1.0, 0.0, CLOSE))
    # The near wall's outer face is at 4.5 cm, 0.5 cm ahead of the block; the fingers start 0.8 cm behind it.
    assert w.bodies[0].at[1] == pytest.approx(0.025)
    assert w.arms[0].at[1] == pytest.approx(-0.007)


def test_a_carried_block_pushes_another_at_its_height():
    w = play(world(block("red", 0.0), block("blue", 0.08), arms=[arm(0.0, 0.0, 0.03)]), *[STILL_CLOSED] * 2)
    # Right finger: 2 to 3 cm; the other block's left face is at 6 cm.
    play(w, (1.0, 0.0, 0.0, CLOSE), (1.0, 0.0, 0.0, CLOSE))
    assert [b.at[0] for b in w.bodies] == pytest.approx([0.06, 0.11])


# Two arms


def two_arms():
    return [arm(-0.1, z=0.03, reach=(-0.25, 0.08)), arm(0.1, z=0.03, reach=(-0.08, 0.25))]


def test_a_tray_needs_both_arms():
    tray = Body(color="red", at=[0.0, 0.0, 0.0], parts=TRAY)
    aim = task("lift")
    w = play(world(tray, arms=two_arms()), *[STILL_CLOSED + STILL_OPEN] * 3)
    play(w, *[(0.0, 0.0, 1.0, CLOSE, *STILL_OPEN)] * 4)
    assert [a.held is tray for a in w.arms] == [True, False]
    assert (tray.at[2], tray.tilt) == pytest.approx((0.08, -0.08))  # one end up, as far as it tilts
    assert not solved(aim, w)
    w = play(world(Body(color="red", at=[0.0] * 3, parts=TRAY), arms=two_arms()))
    play(w, *[STILL_CLOSED * 2] * 3, *[(0.0, 0.0, 0.7, CLOSE) * 2] * 2)
    assert not solved(aim, w)  # 4.2 cm
    w.step((1.0, 0.0, 0.7, CLOSE, 0.0, 0.0, 0.7, CLOSE))
    assert w.bodies[0].at == pytest.approx([0.015, 0.0, 0.063])  # sideways, one rigid tray: the mean
    assert solved(aim, w)
    play(w, *[(0.0, 0.0, 0.6, CLOSE, *STILL_CLOSED)] * 2)
    assert not solved(aim, w)  # 3.6 cm off level
    assert play(w, STILL_OPEN * 2).bodies[0].at[2] == 0.0


def test_grippers_do_not_pass_through_each_other():
    arms = [arm(-0.12, z=0.1, reach=(-0.25, 0.08)), arm(0.12, z=0.1, reach=(-0.08, 0.25))]
    w = play(world(arms=arms), *[(1.0, 0.0, 0.0, OPEN, -1.0, 0.0, 0.0, OPEN)] * 8)
    # Open, each is 5 cm wide to either side.
    assert w.arms[1].at[0] - w.arms[0].at[0] == pytest.approx(0.1)


# Goals


HIGH = (0.0, 0.0, 0.2)


@pytest.mark.parametrize(
    ("aim", "bodies", "tip", "done"),
    [
        (task("reach"), [block("red", 0.0)], (0.01, 0.01, 0.05), True),
        (task("reach"), [block("red", 0.0)], (0.015, 0.015, 0.05), False),  # 2.1 cm off
        (task("reach"), [block("red", 0.0)], (0.0, 0.0, 0.053), False),
        (task("reach"), [block("red", 0.1), block("blue", 0.0)], (0.0, 0.0, 0.045), False),
        (task("lift"), [Body(color="red", at=[0.0, 0.0, 0.1], parts=TRAY)], HIGH, False),  # nobody holds it
        (task("push", "blue"), [block("red", 0.14, 0.044)], HIGH, True),
        (task("push", "blue"), [block("red", 0.146)], HIGH, False),
        (task("push", "green"), [block("red", 0.1)], HIGH, False),
        (task("stack", "blue"), [block("red", 0.02, 0.0, 0.04), block("blue", 0.0)], HIGH, True),
        (task("stack", "red", "blue"), [block("red", 0.0, 0.0, 0.04), block("blue", 0.0)], HIGH, False),
        (task("stack", "blue"), [block("red", 0.04), block("blue", 0.0)], HIGH, False),
        (task("place", "blue"), [block("red", -0.12, 0.02, 0.003)], HIGH, True),
        (task("place", "green"), [block("red", -0.12, 0.02, 0.003)], HIGH, False),
        (task("place", "blue"), [block("red", 0.0)], HIGH, False),
        (task("handover", "blue"), [block("red", -0.1, 0.0, 0.003)], HIGH, True),
    ],
)
def test_goals(aim, bodies, tip, done):
    spots = (Spot(color="blue", x=-0.1, y=0.0), Spot(color="green", x=-0.1, y=0.15))
    zones = (Spot(color="blue", x=0.1, y=0.0), Spot(color="green", x=0.1, y=0.15))
    assert solved(aim, world(*bodies, arms=[arm(*tip)], bins=spots, zones=zones)) == done


def test_a_block_still_held_is_not_there_yet():
    zones = (Spot(color="blue", x=0.0, y=0.0),)
    w = play(world(block("red", 0.0), arms=[arm(0.0)], zones=zones), *[STILL_CLOSED] * 2)
    aim = task("push", "blue")
    assert not solved(aim, w)
    assert solved(aim, play(w, STILL_OPEN))
