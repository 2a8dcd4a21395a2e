"""The LeRobot plugin: its policy decides what the served one decides, and refuses what does not fit."""

import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from lastr1.model import weights
from lastr1.serve.engine import PolicyThinker
from lastr1.types import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bundle(tiny):
    return tiny(cameras=2)


@pytest.fixture(scope="module")
def checkpoint(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy") / "last"
    weights.save(bundle, folder)
    return folder


@pytest.fixture
def policy(plugin, checkpoint):
    configuration, modeling, *_ = plugin
    return modeling.Lastr1Policy(configuration.Lastr1Config(checkpoint=str(checkpoint), device="cpu"))


def batch_of(seen, *, floats=True):
    """As LeRobot's environments and datasets give it."""
    batch = {"task": [o.instruction for o in seen]}
    for camera in seen[0].images:
        pixels = torch.from_numpy(np.stack([o.images[camera] for o in seen])).movedim(-1, 1)
        batch[f"observation.images.{camera}"] = pixels / 255 if floats else pixels
    batch["observation.state"] = torch.from_numpy(np.stack([o.state for o in seen]))
    return batch


def test_lerobot_finds_it_by_its_names(plugin):
    """The distribution's name, the module of that name, and what stands in its modules."""
    configuration, modeling, processor, _ = plugin
    facts = tomllib.loads((ROOT / "plugins/lerobot_policy_lastr1/pyproject.toml").read_text())["project"]
    assert facts["name"] == "lerobot_policy_lastr1"
    assert facts["name"] in sys.modules
    registry = sys.modules["lerobot.configs.policies"].PreTrainedConfig
    assert registry.get_choice_class("lastr1") is configuration.Lastr1Config
    assert modeling.__name__ == configuration.__name__.replace("configuration_", "modeling_")
    assert modeling.Lastr1Policy.name == "lastr1"
    assert modeling.Lastr1Policy.config_class is configuration.Lastr1Config
    assert processor.make_lastr1_pre_post_processors(configuration.Lastr1Config(device="cpu"))


@pytest.mark.parametrize("floats", [True, False])
def test_it_decides_what_is_served(policy, bundle, observations, floats):
    seen = observations(3, cameras=2)
    wanted = PolicyThinker(bundle).decide(seen, 4).chunks
    found = policy.predict_action_chunk(batch_of(seen, floats=floats))
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), np.stack([c.actions for c in wanted]))


def test_one_action_after_the_other(policy, observations):
    """A chunk is played, then the next is decided; a new episode does not play what was left."""
    first, second = (batch_of(observations(2, seed, cameras=2)) for seed in (0, 1))
    wanted, other = policy.predict_action_chunk(first), policy.predict_action_chunk(second)
    assert not torch.equal(wanted, other)
    for step in range(3):
        torch.testing.assert_close(policy.select_action(first), wanted[:, step], rtol=0, atol=0)
    torch.testing.assert_close(policy.select_action(second), other[:, 0], rtol=0, atol=0)
    policy.reset()
    torch.testing.assert_close(policy.select_action(first), wanted[:, 0], rtol=0, atol=0)
    policy.reset()
    policy.config.n_action_steps = 1
    policy.select_action(first)
    torch.testing.assert_close(policy.select_action(second), other[:, 0], rtol=0, atol=0)


def test_shorter_thoughts(plugin, checkpoint, bundle, observations):
    configuration, modeling, *_ = plugin
    config = configuration.Lastr1Config(checkpoint=str(checkpoint), device="cpu", max_groups=1)
    seen = observations(4, cameras=2)
    found = modeling.Lastr1Policy(config).predict_action_chunk(batch_of(seen)).numpy()
    thinker = PolicyThinker(bundle)
    np.testing.assert_array_equal(found, np.stack([c.actions for c in thinker.decide(seen, 1).chunks]))
    assert set(thinker.decide(seen, 4).groups) != {1}


@pytest.mark.parametrize(("gripper", "closed", "opened"), [("libero", 1, -1), ("droid", 1, 0)])
def test_the_robots_own_words_for_a_gripper(policy, observations, gripper, closed, opened):
    batch = batch_of(observations(4, cameras=2))
    plain = policy.predict_action_chunk(batch)
    policy.config.gripper = gripper
    found = policy.predict_action_chunk(batch)
    torch.testing.assert_close(found[..., :3], plain[..., :3], rtol=0, atol=0)
    torch.testing.assert_close(found[..., 3], torch.where(plain[..., 3] == 1, opened, closed).float())


def test_a_wrapped_policy_is_the_same(plugin, checkpoint, observations, tmp_path, policy):
    """Config, processors and the policy's own folder, which needs the first checkpoint no more."""
    _, modeling, _, command = plugin
    out = tmp_path / "wrapped"
    command.wrap(checkpoint, out, "libero")
    files = {p.name for p in out.iterdir()}
    assert files >= {"config.json", "policy_preprocessor.json", "policy_postprocessor.json", "lastr1"}
    assert str(checkpoint) not in (out / "config.json").read_text()
    moved = out.rename(tmp_path / "moved")
    again = modeling.Lastr1Policy.from_pretrained(moved)
    assert again.config.gripper == "libero"
    batch = batch_of(observations(2, cameras=2))
    policy.config.gripper = "libero"
    torch.testing.assert_close(
        again.predict_action_chunk(batch), policy.predict_action_chunk(batch), rtol=0, atol=0
    )
    with pytest.raises(UserError, match="exists: choose another folder"):
        command.wrap(checkpoint, moved)


def test_the_command(plugin, checkpoint, tmp_path, monkeypatch, capsys):
    *_, command = plugin
    monkeypatch.setattr(sys, "argv", ["lastr1-to-lerobot", str(checkpoint), str(tmp_path)])
    assert command.main() == 2
    assert re.fullmatch(r".* exists: choose another folder\n", capsys.readouterr().err)
    monkeypatch.setattr(sys, "argv", ["lastr1-to-lerobot", str(checkpoint), str(tmp_path / "new")])
    assert command.main() == 0
    assert (tmp_path / "new" / "config.json").is_file()


def test_a_robot_that_does_not_fit(plugin, checkpoint, bundle):
    configuration, modeling, *_ = plugin
    seen, done = modeling.features(bundle.spec)
    feature = type(done["action"])

    def load(**changes):
        fits = {"input_features": seen, "output_features": done, "checkpoint": str(checkpoint)}
        return modeling.Lastr1Policy(configuration.Lastr1Config(**{**fits, **changes}, device="cpu"))

    assert load().config.input_features == seen
    state = {**seen, "observation.state": feature(type=seen["observation.state"].type, shape=(8,))}
    with pytest.raises(UserError, match=r"drives toy.*observation.state: \[8\], not \[1\]: x \(m\)"):
        load(input_features=state)
    other = {key.replace("camera1", "wrist"): value for key, value in seen.items()}
    with pytest.raises(UserError, match=r"no observation.images.camera1 \(but .*images.wrist\): rename"):
        load(input_features=other)
    small = {"action": feature(type=done["action"].type, shape=(7,))}
    with pytest.raises(UserError, match=r"action: \[7\], not \[4\]: x \(controller\)"):
        load(output_features=small)
    with pytest.raises(UserError, match=r"no checkpoint: give --policy\.checkpoint"):
        load(checkpoint="")
    with pytest.raises(ValueError, match="gripper 'hand' is none of lastr1, libero, droid"):
        load(gripper="hand")
    with pytest.raises(ValueError, match="n_action_steps must be 1 or more"):
        load(n_action_steps=0)


def test_observations_that_do_not_fit(policy, observations):
    batch = batch_of(observations(1, cameras=2))
    with pytest.raises(UserError, match=r"has no observation.images.camera1, task: it has obs"):
        policy.select_action({k: v for k, v in batch.items() if "camera1" not in k and k != "task"})
    with pytest.raises(ValueError, match="not all numbers are finite"):
        policy.select_action({**batch, "observation.state": torch.tensor([[torch.nan]])})
    with pytest.raises(ValueError, match=r"2 numbers, toy has x \(m\)"):
        policy.select_action({**batch, "observation.state": torch.zeros(1, 2)})


def test_training_is_elsewhere(policy):
    for what in (lambda: policy.forward({}), policy.get_optim_params, policy.config.get_optimizer_preset):
        with pytest.raises(NotImplementedError, match="use lastr1 warmup"):
            what()


def test_lerobots_own_way(real, plugin, checkpoint, observations, policy, tmp_path):
    """Its factories find class and processors, and what goes through them comes out the same."""
    if not real:
        pytest.skip("LeRobot is not installed")
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors

    _, modeling, _, command = plugin
    assert get_policy_class("lastr1") is modeling.Lastr1Policy
    command.wrap(checkpoint, tmp_path / "wrapped")
    loaded = get_policy_class("lastr1").from_pretrained(tmp_path / "wrapped")
    over = {"device_processor": {"device": "cpu"}, "rename_observations_processor": {"rename_map": {}}}
    before, after = make_pre_post_processors(
        loaded.config, pretrained_path=str(tmp_path / "wrapped"), preprocessor_overrides=over
    )
    batch = batch_of(observations(1, cameras=2))
    # one robot without a batch, as lerobot-rollout has it
    single = {key: value[0] for key, value in batch.items()}
    found = after(loaded.select_action(before(single)))
    torch.testing.assert_close(found, policy.select_action(batch), rtol=0, atol=0)
