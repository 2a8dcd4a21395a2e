"""Filming: an environment that keeps a frame of every control step."""

import numpy as np

from lastr1.envs.base import Env, Setup, Start
from lastr1.types import ActionChunk, Image, Observation, Outcome


class FilmedEnv:
    """The same environment, played one control step at a time so that nothing is missed."""

    def __init__(self, env: Env, size: int) -> None:
        self._env, self._size = env, size
        self.spec, self.tasks, self.stored_states, self.cap = env.spec, env.tasks, env.stored_states, env.cap
        self.frames: list[Image] = []

    def reset(self, start: Start) -> Observation:
        """Begin an episode and a new film."""
        observation = self._env.reset(start)
        self.frames = [self._frame(observation)]
        return observation

    def play(self, chunk: ActionChunk) -> Outcome:
        """As the environment plays it, with a frame after every control step."""
        reward, steps = 0.0, 0
        for action in chunk.actions:
            outcome = self._env.play(ActionChunk(actions=action[None]))
            self.frames.append(self._frame(outcome.observation))
            reward += outcome.reward
            steps += 1
            if outcome.terminated or outcome.truncated:
                break
        return Outcome(
            observation=outcome.observation,
            reward=reward,
            terminated=outcome.terminated,
            truncated=outcome.truncated,
            steps=steps,
        )

    def _frame(self, seen: Observation) -> Image:
        """What the policy saw, if it is of the film's size: LIBERO takes a tenth of a second for another."""
        image = next(iter(seen.images.values()))
        return image if image.shape[:2] == (self._size, self._size) else self._env.frame(self._size)

    def describe(self) -> Setup:
        """As the environment is set up."""
        return self._env.describe()

    def frame(self, size: int) -> Image:
        """The scene now."""
        return self._env.frame(size)

    def film(self) -> np.ndarray:
        """uint8 [control steps + 1, size, size, 3]."""
        return np.stack(self.frames)

    def close(self) -> None:
        """Free the simulator."""
        self._env.close()
