"""PyPI's `openpi-client`, unchanged, in an environment of its own: `make openpi`, or LASTR1_OPENPI names one.

The shipped base drives the embedded world through it, under our own, LIBERO's and DROID's key names.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from lastr1.model import weights
from lastr1.serve.engine import PolicyThinker
from lastr1.serve.job import greeting_of
from lastr1.train.run import BUILTIN

ROOT = Path(__file__).resolve().parents[2]
PYTHON = Path(os.environ.get("LASTR1_OPENPI", ROOT / ".venv-openpi")) / "bin" / "python"

pytestmark = pytest.mark.skipif(not PYTHON.is_file(), reason="no environment with openpi-client: make openpi")


@pytest.fixture(scope="module")
def base():
    return weights.load(BUILTIN)


def robot(url, names, *key):
    """What openpi's client saw: the exchanges of a few episodes."""
    done = subprocess.run(
        [PYTHON, ROOT / "tests/serve/openpi_robot.py", url.rpartition(":")[2], names, *key],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("names", ["lastr1", "libero", "droid"])
def test_episodes_to_success(served, base, names, capfd):
    """All three namings play the same episodes to success; a broken request is a RuntimeError of one line."""
    with served(thinker=PolicyThinker(base), greeting=greeting_of(base, 60_000.0)) as (url, server, _):
        *episodes, refusal = robot(url, names)
    assert [e["success"] for e in episodes] == [True, True, True]
    assert {e["robot"] for e in episodes} == {"tabletop"}
    assert sum(len(e["trips_ms"]) for e in episodes) == server.metrics.decisions
    assert {"infer_ms", "p50_ms", "p95_ms", "p99_ms", "latents", "latents_mean"} <= set(episodes[0]["timing"])
    assert "no image" in refusal["refused"]
    assert "Traceback" not in refusal["refused"]
    assert "Traceback" not in capfd.readouterr().err


def test_its_key(served, base):
    with served(thinker=PolicyThinker(base), greeting=greeting_of(base, 60_000.0), key="sesame") as (
        url,
        _,
        _,
    ):
        assert robot(url, "lastr1", "sesame")[0]["success"]
