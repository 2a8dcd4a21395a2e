"""Every suite of the embedded world keeps the contract, and `check_env` catches those who do not."""

from dataclasses import replace

import numpy as np
import pytest

from lastr1.envs.check import EnvContractError, check_env
from lastr1.envs.tabletop import TabletopEnv
from lastr1.envs.tabletop_tasks import SUITES


@pytest.mark.parametrize("suite", SUITES)
def test_tabletop_keeps_the_contract(suite):
    check_env(TabletopEnv(suite, 32))


class Noisy(TabletopEnv):
    rng = np.random.default_rng(0)

    def frame(self, size):
        return super().frame(size) + self.rng.integers(0, 2, dtype=np.uint8)


class Late(TabletopEnv):
    """Truncates one control step after the cap."""

    def play(self, chunk):
        self.cap += 1
        try:
            return super().play(chunk)
        finally:
            self.cap -= 1


class Both(TabletopEnv):
    def play(self, chunk):
        outcome = super().play(chunk)
        return replace(outcome, terminated=outcome.truncated or outcome.terminated)


class Wide(TabletopEnv):
    def _observe(self):
        seen = super()._observe()
        return replace(seen, state=seen.state.astype(np.float64))


class Lenient(TabletopEnv):
    def play(self, chunk):
        return super().play(replace(chunk, actions=np.nan_to_num(chunk.actions)))


class Restless(TabletopEnv):
    def __init__(self, suite, size):
        super().__init__(suite, size)
        self.spec = replace(self.spec, hold=(0.0, 0.0, 0.2, 0.5))


class Boastful(TabletopEnv):
    def describe(self):
        return replace(super().describe(), image=512)


class Endless(TabletopEnv):
    def play(self, chunk):
        self._over = False
        self._steps = min(self._steps, self.cap - 1)
        return super().play(chunk)


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (Noisy, "two resets to .* differ"),
        (Late, "81 control steps were played, the cap is 80"),
        (Both, "both terminated and truncated"),
        (Wide, "state is float64, expected float32"),
        (Lenient, "a number that is not finite must raise ValueError"),
        (Restless, "the hold action moves z"),
        (Boastful, "describe.. says .* 512.*, they are .* 16"),
        (Endless, "after the end of the episode must raise RuntimeError"),
    ],
)
def test_a_broken_promise_is_named(broken, complaint):
    with pytest.raises(EnvContractError, match=complaint):
        check_env(broken("tabletop", 16))
