"""What clients call things: ours, openpi's LIBERO and DROID names."""

import numpy as np
import pytest

from lastr1.envs.libero_stack import libero_spec
from lastr1.serve.keys import (
    DROID,
    LIBERO,
    actions_for,
    deadline_of,
    naming_of,
    observation_of,
    request_of,
)
from lastr1.serve.wire import WireError
from lastr1.spec import Camera, Dim, RobotSpec
from lastr1.types import ActionChunk


def image(value=0, size=8):
    return np.full((size, size, 3), value, np.uint8)


def droid_spec(cameras=2):
    joints = tuple(Dim(name=f"joint{i}", unit="rad", low=-3.0, high=3.0) for i in range(7))
    speeds = tuple(Dim(name=f"joint{i}", unit="controller", low=-1.0, high=1.0) for i in range(7))
    grip = Dim(name="gripper", unit="open fraction", low=0.0, high=1.0, binary=True)
    names = ("outside", "wrist", "other_side", "top")[:cameras]
    return RobotSpec(
        name="droid",
        cameras=tuple(Camera(name=n, height=8, width=8) for n in names),
        state=(*joints, grip),
        action=(*speeds, grip),
        rate=15.0,
        hold=(0.0,) * 7 + (1.0,),
    )


def droid_message(**more):
    return {
        "observation/exterior_image_1_left": image(1),
        "observation/wrist_image_left": image(2),
        "observation/joint_position": np.arange(7.0),
        "observation/gripper_position": np.array([0.25]),
        "prompt": "open the drawer",
        **more,
    }


def read(message, spec):
    naming = naming_of(message, spec)
    return naming, observation_of(message, naming, spec)


def test_our_own_names_come_back(robot, observations):
    spec, (seen,) = robot(2), observations(1, cameras=2)
    message = request_of(seen, 40.0)
    naming, found = read(message, spec)
    assert list(found.images) == ["camera0", "camera1"]
    assert all(np.array_equal(found.images[c], seen.images[c]) for c in seen.images)
    assert np.array_equal(found.state, seen.state)
    assert (found.instruction, deadline_of(message)) == (seen.instruction, 40.0)
    chunk = ActionChunk(actions=np.array([[0.1, 0.2, 0.3, 1.0]], np.float32))
    assert np.array_equal(actions_for(chunk, naming, spec), chunk.actions)


def test_libero_names():
    """Its wrist camera is not ours; its gripper is -1 open, +1 closed, and its fingers stay in m."""
    spec, state = libero_spec(image=8), np.linspace(0, 0.7, 8)
    naming, found = read(
        {
            "observation/image": image(3),
            "observation/wrist_image": image(4),
            "observation/state": state,
            "prompt": "put it away",
        },
        spec,
    )
    assert naming == LIBERO
    assert list(found.images) == ["agentview"]
    assert found.images["agentview"][0, 0, 0] == 3
    assert np.allclose(found.state, state)
    actions = np.zeros((2, 7), np.float32)
    actions[0, 6] = 1.0
    assert actions_for(ActionChunk(actions=actions), naming, spec)[:, 6].tolist() == [-1.0, 1.0]


def test_droid_names():
    """Its gripper is 0 open, 1 closed, in state and action."""
    spec = droid_spec()
    naming, found = read(droid_message(), spec)
    assert naming == DROID
    assert [found.images[c][0, 0, 0] for c in ("outside", "wrist")] == [1, 2]
    assert found.state.tolist() == [0, 1, 2, 3, 4, 5, 6, 0.75]
    actions = np.tile(np.array([0.5] * 7 + [1.0], np.float32), (2, 1))
    assert actions_for(ActionChunk(actions=actions), naming, spec).tolist() == [[0.5] * 7 + [0.0]] * 2


@pytest.mark.parametrize("grip", [0.25, 0, [0.25], np.float32(0.25), np.array(0.25), np.array([[0.25]])])
def test_numbers_come_in_many_coats(grip):
    _, found = read(droid_message(**{"observation/gripper_position": grip}), droid_spec())
    assert found.state[7] in (0.75, 1.0)


WRONG = {
    "image of floats": {"observation/wrist_image_left": image().astype(np.float32)},
    "grey image": {"observation/wrist_image_left": image()[..., 0]},
    "planes first": {"observation/wrist_image_left": image().transpose(2, 0, 1)},
    "endless image": {"observation/wrist_image_left": np.zeros((1, 5000, 3), np.uint8)},
    "no pixels": {"observation/wrist_image_left": np.zeros((0, 8, 3), np.uint8)},
    "a missing image": {"observation/wrist_image_left": None},
    "words for joints": {"observation/joint_position": "up"},
    "a list of words": {"observation/joint_position": ["up"]},
    "six joints": {"observation/joint_position": np.zeros(6)},
    "not a number": {"observation/joint_position": np.full(7, np.nan)},
    "no prompt": {"prompt": None},
    "empty prompt": {"prompt": ""},
    "endless prompt": {"prompt": "x" * 1001},
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_named(case):
    (key,) = WRONG[case]
    with pytest.raises(WireError, match=key):
        read(droid_message(**WRONG[case]), droid_spec())


def test_all_of_it_is_named_at_once():
    message = droid_message(prompt=3, **{"observation/joint_position": None})
    message["observation/wrist_image_left"] = np.zeros(3)
    with pytest.raises(WireError) as found:
        read(message, droid_spec())
    for key in ("prompt", "joint_position", "wrist_image_left", "float64 [3]"):
        assert key in str(found.value)


def test_more_cameras_than_a_client_has():
    with pytest.raises(WireError, match="DROID clients have 3 cameras, droid has 4"):
        read(droid_message(**{"observation/exterior_image_2_left": image()}), droid_spec(cameras=4))


def test_no_image_at_all():
    with pytest.raises(WireError, match=r"observation/images/outside.*observation/image"):
        read({"prompt": "go"}, droid_spec())


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), "soon", True, 1e12, [1]])
def test_a_deadline_that_is_none(value):
    with pytest.raises(WireError, match="deadline_ms"):
        deadline_of({"deadline_ms": value})


def test_no_deadline():
    assert deadline_of({}) is None
