"""Every job on the real simulators, at its smallest."""

import json

import pytest

from lastr1.cli import main
from lastr1.envs import make_env
from lastr1.presets import RECIPES
from lastr1.types import UserError

ONE = ["--threads", "1", "--processes", "1"]


@pytest.mark.slow
@pytest.mark.sim
@pytest.mark.parametrize(("suite", "task", "assets"), [("libero_object", 7, 2), ("dualarm", 0, 0)])
def test_collect_warmup_train_evaluate(tmp_path, monkeypatch, suite, task, assets):
    try:
        make_env(RECIPES[suite].env).close()
    except UserError as missing:
        pytest.skip(str(missing))
    monkeypatch.chdir(tmp_path)
    recipe = [f"{suite}_small", "--env.tasks", str(task), *ONE]
    one = ["--env.slots", "1"]
    assert main(["collect", *recipe, *one, "--out", "demos"]) == 0
    assert main(["doctor", "--demo", "demos"]) == 0
    warmup = ["--warmup.iterations", "2", "--warmup.batch", "4", "--base", "builtin"]
    assert main(["warmup", *recipe, *warmup, "--demos", "demos", "--out", "warm"]) == 0
    played = ["--reinforce.iterations", "1", "--reinforce.episodes", "1", "--reinforce.minibatches", "1"]
    assert main(["train", *recipe, *one, *played, "--checkpoint", "warm/last", "--out", "run"]) == 0
    states = ["--evaluate.episodes", "1"]
    assert main(["evaluate", *recipe, *one, *states, "--checkpoint", "run/last", "--out", "result"]) == 0
    result = json.loads((tmp_path / "result" / "result.json").read_text())
    assert result["setup"]["render"] == "coarse"
    assert len(result["signature"]["assets"]) == assets
