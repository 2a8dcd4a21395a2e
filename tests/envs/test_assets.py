"""The hashes of task files in a result."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from lastr1.config import EnvConfig
from lastr1.envs.assets import task_assets


def test_the_embedded_world_has_no_files():
    assert task_assets(EnvConfig(suite="tabletop")) == {}


@pytest.mark.sim
@pytest.mark.parametrize(
    "suite", ["libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90"]
)
def test_scene_and_stored_states_of_every_libero_task(libero, suite):
    env = libero(suite)
    assert len(task_assets(EnvConfig(suite=suite))) == 2 * len(env.tasks)


@pytest.mark.sim
def test_the_hashed_states_are_those_that_are_played(libero):
    env = libero("libero_object")
    found = task_assets(EnvConfig(suite="libero_object", tasks=(7,)))
    (scene,) = (name for name in found if name.endswith(".bddl"))
    (states,) = set(found) - {scene}
    from libero.libero import get_libero_path

    path = Path(get_libero_path("init_states")) / "libero_object" / states
    assert hashlib.sha256(path.read_bytes()).hexdigest() == found[states]
    with np.load(path) as stored:
        assert stored["states"].tobytes() == env._suite.get_task_init_states(7).tobytes()
