"""A run that pays for thinking: what is charged, what a checkpoint holds; evaluations under caps."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from lastr1.cli import main
from lastr1.config import Config, EvaluateConfig, LapoConfig, PolicyConfig, ReinforceConfig, ThinkingConfig
from lastr1.envs.base import Start
from lastr1.rollout.batch import Episode, Step, make_rollout
from lastr1.train.compare import compare
from lastr1.train.evaluate import allowed_caps
from lastr1.train.price import LatentPrice
from lastr1.train.reinforce import TaskSuccess, reinforce
from lastr1.train.standing import Standing
from lastr1.types import UserError


@pytest.fixture
def rollout(tiny, played):
    """Thoughts of 1 and 2 groups, the second succeeds; of 4 groups, a failure.  G = 2."""
    rows = []
    for row, groups in zip(played(tiny(), 3), (1, 2, 4), strict=True):
        used = torch.arange(8) < 2 * groups
        rows.append(replace(row, terms=replace(row.terms, latent_used=used)))

    def episode(rows, success):
        steps = tuple(Step(decided=row, reward=float(success and row is rows[-1]), steps=3) for row in rows)
        return Episode(start=Start(task=0), steps=steps, success=success, after=None, seconds=1.0, version=0)

    return make_rollout([episode(rows[:2], True), episode(rows[2:], False)])


def test_a_decision_pays_for_the_latents_it_used(rollout):
    """2, 4 and 8 latents at 0.1 each; the second succeeds."""
    found = LatentPrice(ThinkingConfig(price=0.1)).charge(rollout)
    torch.testing.assert_close(found.reward, torch.tensor([[-0.2, 0.6], [-0.8, 0.0]]))
    assert found.decisions is rollout.decisions
    assert torch.equal(LatentPrice(ThinkingConfig()).charge(rollout).reward, rollout.reward)


class _Fleet:
    def __init__(self, rollout):
        self.rollout, self.rewards = rollout, []

    def collect(self, iteration):
        return self.rollout

    def update(self, rollout, iteration):
        self.rewards.append(float(rollout.reward[0, 1]))
        return {}

    def publish(self):
        pass


def test_the_multiplier_at_work(rollout):
    """Mean (2 + 4 + 8) / 3 = 14/3, target 4: the price rises by 0.03 * 2/3 = 0.02 an iteration."""
    fleet, price = _Fleet(rollout), LatentPrice(ThinkingConfig(target=4.0, rate=0.03))
    found = [f["latent_price"] for _, f in reinforce(fleet, ReinforceConfig(iterations=3), 0, 1e18, price)]
    assert found == pytest.approx([0.0, 0.02, 0.04])
    assert fleet.rewards == pytest.approx([1.0, 1 - 4 * 0.02, 1 - 4 * 0.04])
    assert price.value == pytest.approx(0.06)


@pytest.mark.parametrize("config", [ThinkingConfig(), ThinkingConfig(price=0.25)])
def test_a_price_without_a_target_stays(rollout, config):
    fleet, price = _Fleet(rollout), LatentPrice(config)
    rows = [f for _, f in reinforce(fleet, ReinforceConfig(iterations=2), 0, 1e18, price)]
    assert fleet.rewards == [1 - 4 * config.price] * 2
    assert ["latent_price" in row for row in rows] == [config.price > 0] * 2


def test_a_checkpoint_holds_the_price(tmp_path):
    kept = Standing(TaskSuccess((0,)), LatentPrice(ThinkingConfig(target=3.0)))
    kept.price.value = 0.1 + 0.2  # not a short decimal: every bit has to come back
    for name, content in kept.memory().items():
        (tmp_path / name).write_bytes(content)
    again = Standing(TaskSuccess((0,)), LatentPrice(ThinkingConfig(target=3.0)))
    again.recall(tmp_path)
    assert again.price.value == 0.1 + 0.2


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"thinking": ThinkingConfig(target=2.0)}, "between 2 and 8 latents"),
        ({"thinking": ThinkingConfig(target=8.0)}, "between 2 and 8 latents"),
        ({"thinking": ThinkingConfig(target=3.0), "policy": PolicyConfig(stop_candidates=1)}, "2 and 2"),
        (
            {
                "thinking": ThinkingConfig(price=0.01),
                "lapo": LapoConfig(advantage="grpo", value_weight=0.0),
                "reinforce": ReinforceConfig(group=8),
            },
            "set lapo.advantage to rloo or gae",
        ),
    ],
)
def test_budgets_that_cannot_be(knobs, words):
    with pytest.raises(ValueError, match=words):
        Config(name="test", **knobs)


def test_caps_that_cannot_be():
    assert allowed_caps(EvaluateConfig(), 4) == (None,)
    assert allowed_caps(EvaluateConfig(caps=(2, 4)), 4) == (2, 4)
    with pytest.raises(UserError, match=r"caps 4.* at most 2 groups"):
        allowed_caps(EvaluateConfig(caps=(1, 4)), 2)
    for caps in ((0, 1), (2, 1), (1, 1)):
        with pytest.raises(ValueError, match="must rise from 1"):
            EvaluateConfig(caps=caps)


def _result(folder):
    return json.loads((folder / "result.json").read_text())


def _played(result):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in result["rows"]]


def test_an_evaluation_under_caps(toy, tmp_path, capsys):
    """The same states under each cap; the last cap is K, where nothing is cut."""
    out = tmp_path / "warmup"
    assert main(["warmup", "tabletop", *toy, "--out", str(out)]) == 0

    def evaluate(name, *knobs):
        folders = ["--checkpoint", str(out / "last"), "--out", str(tmp_path / name)]
        assert main(["evaluate", "tabletop", *toy, *folders, *knobs]) == 0
        return _result(tmp_path / name)

    free = evaluate("free")
    capsys.readouterr()
    cut = evaluate("caps", "--evaluate.caps", "1", "2", "4", "--processes", "2")
    assert _played(cut) == _played(free)
    assert free["caps"] == []
    assert [point["cap"] for point in cut["caps"]] == [1, 2, 4]
    assert cut["caps"][0]["mean_latents"] == 2.0
    for point in cut["caps"]:
        own = _result(tmp_path / "caps" / f"cap_{point['cap']}")
        assert (own["total"], own["mean_latents"], own["caps"]) == (
            point["total"],
            point["mean_latents"],
            [point],
        )
        assert max(int(length) for length in own["latents"]) <= 2 * point["cap"]
        assert [(r["task"], r["state"]) for r in own["rows"]] == [
            (r["task"], r["state"]) for r in free["rows"]
        ]
    printed = capsys.readouterr().out
    assert "at most 1 group  " in printed
    assert "mean thought 2.00 latents" in printed
    with Image.open(tmp_path / "caps" / "caps.png") as image:
        assert image.width == 1740
    assert "5 initial states are shared" in compare(tmp_path / "free", tmp_path / "caps" / "cap_1")
