"""A film shows every control step, and filming changes nothing."""

import numpy as np
import pytest

from lastr1.envs.base import Start
from lastr1.envs.expert import TabletopExpert, collect_episode
from lastr1.envs.tabletop import TabletopEnv
from lastr1.rollout.film import FilmedEnv
from lastr1.types import ActionChunk


@pytest.mark.parametrize("size", [32, 48], ids=["the camera's size", "another size"])
def test_a_filmed_episode_is_the_same_episode(size):
    """Chunks of 8 up to success; one frame before the first control step and one after each."""
    start, plain = Start(task=1, seed=4), TabletopEnv("tabletop", 32)
    episode = collect_episode(plain, TabletopExpert(), start, rng=np.random.default_rng(0))
    chunks = [ActionChunk(actions=episode.actions[i : i + 8]) for i in range(0, len(episode.actions), 8)]
    filmed = FilmedEnv(TabletopEnv("tabletop", 32), size)
    filmed.reset(Start(task=0, seed=1))  # another film, forgotten
    for env in (plain, filmed):
        env.reset(start)
    for chunk in chunks:
        one, other = plain.play(chunk), filmed.play(chunk)
        assert (one.reward, one.terminated, one.steps) == (other.reward, other.terminated, other.steps)
        np.testing.assert_array_equal(one.observation.images["front"], other.observation.images["front"])
    assert other.terminated
    frames = [*episode.frames["front"]] if size == 32 else _drawn(plain, start, episode.actions, size)
    np.testing.assert_array_equal(filmed.film(), frames)


def _drawn(env, start, actions, size):
    env.reset(start)
    frames = [env.frame(size)]
    for action in actions:
        env.play(ActionChunk(actions=action[None]))
        frames.append(env.frame(size))
    return frames
