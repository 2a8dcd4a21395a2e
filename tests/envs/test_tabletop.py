"""The embedded world as an environment: camera, suites, episodes, the scripted expert."""

import numpy as np
import pytest

from lastr1.envs.base import Start
from lastr1.envs.expert import TabletopExpert, collect_episode
from lastr1.envs.raster import Camera, paint
from lastr1.envs.tabletop import TabletopEnv
from lastr1.envs.tabletop_tasks import COLORS, SUITES, scene, solved
from lastr1.envs.tabletop_things import SIDE, Arm, Body, Spot
from lastr1.envs.tabletop_view import COLOR, RIGHT, SHADES, View, _behind
from lastr1.envs.tabletop_world import World
from lastr1.types import ActionChunk, UserError


def block(color, x, y=0.0, z=0.0):
    return Body(color=color, at=[x, y, z])


def world(*bodies, tip=(0.0, 0.0, 0.2), **places):
    return World(bodies=list(bodies), arms=[Arm(at=list(tip), reach=(-0.25, 0.25))], **places)


# Camera


def test_camera_projects_as_worked_by_hand():
    camera = Camera(eye=(0.0, -1.0, 1.0), target=(0.0, 0.0, 0.0), focal=1.0, size=100)
    points = np.array([[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.0, 0.5]])
    # Looking down at 45 degrees from sqrt(2) away: 0.5 to the right is 100 * 0.5 / 1.41421 = 35.355 pixels;
    # 0.5 up is 0.35355 up the image at a depth of 1.06066: 33.333 pixels.
    assert camera.project(points) == pytest.approx(
        np.array([[50, 50], [85.35534, 50], [50, 16.66667]]), abs=1e-4
    )


def test_edges_cover_in_proportion():
    image = np.zeros((8, 8, 3), dtype=np.float32)
    square = np.array([[[2.25, 2.0], [5.0, 2.0], [5.0, 5.0], [2.25, 5.0]]])
    paint(image, square, [np.array([100.0, 0.0, 0.0], dtype=np.float32)], [1.0])
    # Half a pixel of fat: the left edge is at 1.75, a quarter of the pixel 1..2; the right
    # one, at 5.5, covers half of 5..6.
    assert image[3, :, 0] == pytest.approx([0, 25, 100, 100, 100, 50, 0, 0], abs=1e-3)
    assert image[..., 1:].max() == 0.0


def test_target_tasks_are_seen_from_elsewhere():
    """8 cm to the right and 6 cm higher than where the base was taught; the table stays in the picture."""
    target, base = TabletopEnv("tabletop", 32), TabletopEnv("tabletop_base", 32)
    assert np.subtract(target.eye, base.eye) == pytest.approx((0.08, 0.0, 0.06))
    corners = np.array([[x, y, 0.0] for x in (-0.24, 0.24) for y in (-0.24, 0.24)])
    for env in (target, base):
        seen = View(128, env.eye).camera.project(corners)
        assert (seen > 0).all()
        assert (seen < 128).all()


def test_a_millimetre_shows():
    w = scene(SUITES["tabletop"][0], Start(task=0, seed=1))
    view = View(128)
    first = view.image(w)
    for axis in range(3):
        moved = w.copy()
        moved.arms[0].at[axis] += 0.001
        assert (view.image(moved) != first).any()
    assert np.array_equal(view.image(w), first)


def test_a_wall_hides_what_is_behind_it_and_the_shadow_falls_on_what_is_below():
    bins = (Spot(color="blue", x=0.0, y=0.0),)
    view = View(256)
    # The block leans on the near wall's inside, painted after the wall: the wall still shows in front of it.
    w = world(block("red", 0.0, -0.029, 0.003), bins=bins)
    wall = view.camera.project(np.array([0.0, -0.055, 0.012])).astype(int)
    red, blue = view.image(w)[wall[1], wall[0]][[0, 2]].astype(int)
    assert blue > red + 50
    lit = world(block("red", 0.0), tip=(0.2, 0.2, 0.15))
    dark = world(block("red", 0.0), tip=(0.0, 0.0, 0.15))
    top = view.camera.project(np.array([0.0, -0.01, 0.04])).astype(int)
    assert view.image(lit)[top[1], top[0], 0] > view.image(dark)[top[1], top[0], 0] + 30


def test_what_lies_below_or_beyond_is_painted_first():
    low, high = (0.0, 0.0, 0.0, 0.1, 0.1, 0.1), (0.0, 0.0, 0.1, 0.1, 0.1, 0.2)
    far = (0.0, 0.1, 0.0, 0.1, 0.2, 0.1)
    right = (0.1, 0.0, 0.0, 0.2, 0.1, 0.1)  # the camera is at x = 0: what is farther out is behind
    for first, then in ((low, high), (far, low), (right, low)):
        assert _behind(first, then, eye=0.0)
        assert not _behind(then, first, eye=0.0)
    # Seen from beyond their common side, the order turns.
    assert _behind(low, right, eye=0.2)
    assert not _behind(right, low, eye=0.2)


def test_another_eye_sees_other_sides():
    """From 0.4 m to the right: the right side of the left block, unless another one stands close to it."""
    view = View(256, (0.4, -0.5, 0.72))
    side = view.camera.project(np.array([0.1 + SIDE / 2, 0.0, SIDE / 2])).astype(int)
    left, right = block("red", 0.1), block("blue", 0.101 + SIDE)
    alone = view.image(world(left))[side[1], side[0]]
    assert alone == pytest.approx(COLOR["red"] * SHADES[RIGHT], abs=2)
    for bodies in ((left, right), (right, left)):
        red, _, blue = view.image(world(*bodies))[side[1], side[0]].astype(int)
        assert blue > red + 50


# Suites and episodes


def test_no_target_instruction_is_ever_pretrained_on():
    names = {suite: [t.instruction for t in tasks] for suite, tasks in SUITES.items()}
    assert {suite: len(set(tasks)) for suite, tasks in names.items()} == {
        "tabletop": 4,  # one of each kind
        "tabletop_base": 5
        + 3 * 29,  # 6 colours; 6 x 5 ordered pairs for push, place, stack; less the targets
        "tabletop_dual": 2,
        "tabletop_dual_base": 5 + 29,
    }
    for target in ("tabletop", "tabletop_dual"):
        assert not set(names[target]) & set(names[f"{target}_base"])
        assert {t.kind for t in SUITES[target]} == {t.kind for t in SUITES[f"{target}_base"]}
        # Every colour of a target was seen in some other sentence.
        assert all(any(c in n for n in names[f"{target}_base"]) for c in COLORS)


def test_scenes_need_the_instruction_and_are_not_solved_yet():
    for suite in ("tabletop", "tabletop_dual"):
        for index, task in enumerate(SUITES[suite]):
            for seed in range(20):
                w = scene(task, Start(task=index, seed=seed))
                assert not solved(task, w)
                at_rest = [list(b.at) for b in w.bodies]
                w.settle()
                assert [b.at for b in w.bodies] == at_rest
                places = w.zones + w.bins
                assert len(w.bodies) >= 2
                assert len({b.color for b in w.bodies}) == len(w.bodies)
                assert len({s.color for s in places}) == len(places) == (0 if not places else 2)


def test_stored_states_and_fresh_seeds_never_meet():
    task = SUITES["tabletop"][3]
    scenes = [Start(task=3, state=i) for i in range(50)] + [Start(task=3, seed=i) for i in range(50)]
    layouts = {tuple(scene(task, start).bodies[0].at) for start in scenes}
    assert len(layouts) == 100


def test_unknown_suite():
    with pytest.raises(UserError, match="'table': choose one of tabletop"):
        TabletopEnv("table")


def test_same_snapshot_and_same_chunk_give_the_same_outcome_bit_for_bit():
    env = TabletopEnv("tabletop_dual", 64)
    rng = np.random.default_rng(0)
    env.reset(Start(task=1, seed=3))
    for _ in range(4):
        before = env.snapshot()
        chunk = ActionChunk(actions=rng.uniform(-1, 1, (8, 8)).astype(np.float32))
        one = env.play(chunk)
        env.restore(before)
        for action in chunk.actions[:, None]:
            other = env.play(ActionChunk(actions=action))
        assert one.observation.state.tobytes() == other.observation.state.tobytes()
        assert np.array_equal(one.observation.images["front"], other.observation.images["front"])


def test_translations_beyond_the_limits_are_clipped():
    env, states = TabletopEnv("tabletop", 16), []
    for size in (1.0, 5.0):
        env.reset(Start(task=1, seed=2))
        actions = np.array([[-size, size, -size, 1.0]] * 3, dtype=np.float32)
        states.append(env.play(ActionChunk(actions=actions)).observation.state.tolist())
    assert states[0] == states[1]


def test_success_ends_a_chunk_and_pays_one():
    env, expert = TabletopEnv("tabletop", 32), TabletopExpert()
    actions = collect_episode(env, expert, Start(task=0, seed=4), rng=np.random.default_rng(0)).actions
    env.reset(Start(task=0, seed=4))
    outcome = env.play(ActionChunk(actions=np.concatenate([actions, np.tile(env.spec.hold, (4, 1))])))
    assert (outcome.steps, outcome.reward) == (len(actions), 1.0)
    assert (outcome.terminated, outcome.truncated) == (True, False)


# The expert


@pytest.mark.parametrize("suite", SUITES)
def test_the_expert_solves_every_kind(suite):
    env, expert = TabletopEnv(suite, 16), TabletopExpert()
    kinds = [task.kind for task in env.kinds]
    for kind in dict.fromkeys(kinds):
        for seed in range(3):
            start = Start(task=len(kinds) - 1 - kinds[::-1].index(kind), seed=100 + seed)
            episode = collect_episode(env, expert, start, rng=np.random.default_rng(0))
            assert episode.success, (kind, seed)
            assert len(episode.actions) <= 0.7 * env.cap
            assert len(episode.frames["front"]) == len(episode.states) == len(episode.actions) + 1
            assert np.abs(episode.actions).max() <= 1.0


def test_the_expert_takes_over_from_a_disturbed_scene():
    env, expert = TabletopEnv("tabletop", 16), TabletopExpert()
    for task in range(len(env.tasks)):
        for seed in range(4):
            rng = np.random.default_rng(seed)
            env.reset(Start(task=task, seed=seed))
            drift = rng.uniform(-1, 1, 4) - [0.0, 0.0, 0.6, 0.0]
            outcome = env.play(ActionChunk(actions=np.tile(drift, (12, 1)).clip(-1, 1)))
            while not (outcome.terminated or outcome.truncated):
                outcome = env.play(ActionChunk(actions=expert.act(env)[None]))
            assert outcome.terminated, (env.tasks[task], seed)


def test_recordings_also_begin_where_a_missed_grasp_ends():
    """High above the table with the fingers closed and empty; and the step cap starts anew there."""
    env, expert = TabletopEnv("tabletop", 16), TabletopExpert()
    begun, solved = [], 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        found = collect_episode(env, expert, Start(task=3, seed=seed), noise=0.35, rng=rng)
        begun.append(found.states[0])
        solved += found.success
        assert len(found.actions) <= env.cap
        assert found.success or len(found.actions) == env.cap
    heights, openings = np.array(begun)[:, 2], np.array(begun)[:, 3]
    assert solved >= 27
    assert heights.max() > 0.15
    assert ((heights > 0.1) & (openings < 0.3)).any()


def test_noise_moves_where_a_recording_begins_and_leaves_it_clean():
    env, expert = TabletopEnv("tabletop", 16), TabletopExpert()
    start = Start(task=2, seed=7)
    clean = collect_episode(env, expert, start, rng=np.random.default_rng(0))
    noisy = collect_episode(env, expert, start, noise=0.35, rng=np.random.default_rng(0))
    assert noisy.success
    assert not np.array_equal(noisy.states[0], clean.states[0])
    # What is recorded is what was executed: each move is the recorded action, 3 cm at 1.
    free = noisy.states[1:, :3] - noisy.states[:-1, :3]
    assert np.allclose(free[0], 0.03 * noisy.actions[0, :3], atol=1e-6)
    env.reset(start)
    assert env.play(ActionChunk(actions=clean.actions)).terminated
