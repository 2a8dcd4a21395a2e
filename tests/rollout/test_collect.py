"""Playing: every start becomes one episode, whatever is lost on the way and whoever plays beside it."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from lastr1.config import EnvConfig, PolicyConfig
from lastr1.envs import make_env
from lastr1.envs.base import Start
from lastr1.envs.pool import EnvLost, EnvPool
from lastr1.rollout.collect import Player, scene_seed
from lastr1.types import Observation, Outcome


class FakePool:
    """Scenes whose length and end follow from `Start.seed`; loses what `losses` says.

    An episode with seed s lasts 1 + s % 4 decisions and succeeds if s is odd.  `losses` holds pairs
    (number of the call to `play`, slot), and numbers: of episodes begun whose reset is lost.
    """

    def __init__(self, losses=()):
        self.losses, self.lost = set(losses), 0
        self.calls, self.resets = 0, []
        self.scenes = {}
        self.told = {}
        self.batches = []

    def send(self, requests):
        """Chunks of one call are a batch of the policy's; nothing else is asked then."""
        if requests and not isinstance(next(iter(requests.values())), Start):
            self.batches.append(set(requests))
            self.told |= {slot: self._step(slot, self.calls) for slot in requests}
            self.calls += 1
        else:
            self.told |= {slot: self._begin(slot, start) for slot, start in requests.items()}

    def receive(self, least, patience):
        """All there is; simulators of no duration."""
        assert 1 <= least <= len(self.told)
        told, self.told = self.told, {}
        return told

    def _begin(self, slot, start):
        assert slot not in self.scenes, "a running episode was thrown away"
        self.resets.append(start)
        if len(self.resets) - 1 in self.losses:
            self.lost += 1
            return EnvLost(reason="it never stood up")
        self.scenes[slot] = [start, 0]
        return self._look(slot)

    def _step(self, slot, call):
        if (call, slot) in self.losses:
            self.lost += 1
            del self.scenes[slot]
            return EnvLost(reason="it fell over")
        scene = self.scenes[slot]
        scene[1] += 1
        start, played = scene
        observation = self._look(slot)
        over, solved = played == 1 + start.seed % 4, start.seed % 2 == 1
        if over:
            del self.scenes[slot]
        return Outcome(
            observation=observation,
            reward=float(over and solved),
            terminated=over and solved,
            truncated=over and not solved,
            steps=2 if over else 3,
        )

    def _look(self, slot):
        start, played = self.scenes[slot]
        rng = np.random.default_rng([start.seed, played])
        image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        return Observation(
            images={"camera0": image}, state=np.zeros(1, np.float32), instruction="push the cube"
        )


class Trickle(FakePool):
    """Tells no more than it must, what was asked first first; and one thing at a time to who is impatient."""

    def receive(self, least, patience):
        assert 1 <= least <= len(self.told)
        count = least if patience == math.inf else 1
        return {slot: self.told.pop(slot) for slot in list(self.told)[:count]}


STARTS = [Start(task=i % 2, seed=10 + i) for i in range(7)]


def facts(episode):
    """Everything that makes an episode, as plain values."""
    return (
        episode.start,
        episode.success,
        [
            (s.reward, s.steps, s.decided.tokens.tolist(), int(s.decided.thought.groups))
            for s in episode.steps
        ],
        None if episode.after is None else episode.after.tokens.tolist(),
    )


def play(bundle, pool, *, slots=3, groups=1, patience=math.inf, noise=5, starts=STARTS, **more):
    return Player(bundle, pool, slots, groups, patience).play(starts, noise=noise, **more)


def test_every_start_becomes_one_episode_in_order(tiny):
    pool = FakePool()
    episodes = play(tiny(), pool)
    assert [e.start for e in episodes] == STARTS
    assert sorted(pool.resets, key=STARTS.index) == STARTS
    for episode in episodes:
        seed = episode.start.seed
        assert len(episode.steps) == 1 + seed % 4
        assert episode.success == (seed % 2 == 1)
        assert (episode.after is None) == episode.success
        assert [s.reward for s in episode.steps[:-1]] == [0.0] * (seed % 4)
        assert episode.steps[-1].reward == float(episode.success)
        assert episode.control_steps == 3 * (seed % 4) + 2


def test_what_was_seen_is_what_is_stored(tiny):
    """Pixels before each decision, and those after the cap, of three episodes cut at the same time."""
    bundle = tiny()
    for episode in play(bundle, FakePool(), starts=[Start(task=0, seed=s) for s in (14, 18, 22)]):
        rows = [*(step.decided for step in episode.steps), episode.after]
        assert len(rows) == 4
        for played, row in enumerate(rows):
            rng = np.random.default_rng([episode.start.seed, played])
            image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            assert np.array_equal(row.pixels, [bundle.prompts.pixels(image)])


@pytest.mark.parametrize(
    "losses",
    [[(0, 1)], [(1, 0), (1, 1), (1, 2)], [(0, 0), (1, 0), (2, 0), (3, 0)], [1], [0, 1, 2, 3, 4], [(0, 1), 3]],
)
@pytest.mark.parametrize("make", [FakePool, Trickle])
def test_a_lost_episode_begins_anew(tiny, make, losses):
    """Its start is queued again, and what is played in the end is what would have been played."""
    bundle = tiny()
    pool, progress = make(losses), []
    episodes = play(bundle, pool, groups=2 if make is Trickle else 1, progress=progress.append)
    assert pool.lost == len(losses) or make is Trickle  # whose calls are about fewer slots
    assert pool.lost > 0
    assert len(pool.resets) == len(STARTS) + pool.lost
    assert sum(e.lost for e in episodes) == pool.lost
    assert set(pool.resets) == set(STARTS)
    assert [facts(e) for e in episodes] == [facts(e) for e in play(bundle, FakePool())]
    assert sorted(e.start.seed for e in progress) == [s.seed for s in STARTS]


@pytest.mark.parametrize("slots", [1, 2, 7, 20])
def test_neighbours_do_not_matter(tiny, slots):
    """Alone or beside others, waiting or at once: the draws of an episode are its own."""
    bundle = tiny()
    assert [facts(e) for e in play(bundle, FakePool(), slots=slots)] == [
        facts(e) for e in play(bundle, FakePool())
    ]


@pytest.mark.parametrize(
    ("groups", "patience", "largest"),
    [(1, math.inf, 4), (2, math.inf, 2), (4, math.inf, 1), (2, 1e9, 2), (1, 0, 1)],
)
def test_the_policy_decides_for_some_while_others_play(tiny, groups, patience, largest):
    """Half of the slots in turn, or whoever is there when patience ends: the same episodes."""
    bundle, pool = tiny(), Trickle()
    episodes = play(bundle, pool, slots=4, groups=groups, patience=patience)
    assert max(len(batch) for batch in pool.batches) == largest
    assert [facts(e) for e in episodes] == [facts(e) for e in play(bundle, FakePool())]
    if groups == 2:
        first, second, *_ = pool.batches
        assert not first & second  # while one half plays, the policy decides for the other


def test_noise_decides(tiny):
    bundle = tiny()
    same = [facts(e) for e in play(bundle, FakePool(), noise=5)]
    assert same == [facts(e) for e in play(bundle, FakePool(), noise=5)]
    assert same != [facts(e) for e in play(bundle, FakePool(), noise=6)]


def test_twins_draw_differently(tiny):
    """The same scene twice in one rollout: two samples of the policy, not one."""
    twins = play(tiny(), FakePool(), starts=[Start(task=0, seed=15)] * 2)
    assert facts(twins[0])[2] != facts(twins[1])[2]


def test_greedy_play_is_deterministic(tiny):
    bundle = tiny()
    greedy = [facts(e) for e in play(bundle, FakePool(), noise=None)]
    torch.manual_seed(99)
    assert greedy == [facts(e) for e in play(bundle, FakePool(), noise=None)]
    assert greedy != [facts(e) for e in play(bundle, FakePool(), noise=5)]
    twins = play(bundle, FakePool(), starts=[Start(task=0, seed=15)] * 2, noise=None)
    assert facts(twins[0]) == facts(twins[1])


def test_recorded_terms_are_those_of_the_policy(tiny):
    """Right after collecting, re-evaluation gives the recorded numbers (DESIGN invariant 1)."""
    from lastr1.config import LapoConfig, OptimizerConfig
    from lastr1.rollout.batch import make_rollout
    from lastr1.train.learner import Learner

    bundle = tiny()
    rollout = make_rollout(play(bundle, FakePool()))
    found = Learner(bundle, LapoConfig(), OptimizerConfig()).rescore(rollout.decisions)
    recorded = rollout.decisions.terms
    for name in ("action_logp", "stop_logp", "value"):
        assert torch.allclose(getattr(found, name), getattr(recorded, name), atol=2e-4), name


def test_no_starts_no_episodes(tiny):
    assert play(tiny(), FakePool(), starts=[]) == []


def test_the_version_is_written_on_the_episode(tiny):
    player = Player(tiny(), FakePool(), 2)
    player.version = 7
    assert {e.version for e in player.play(STARTS[:2], noise=1)} == {7}


def test_scene_seeds():
    """Plain numbers, stable between runs and machines; no stream meets another."""
    assert scene_seed(0, 0, 0) == scene_seed(0, 0, 0)
    streams = [{scene_seed(0, stream, i) for i in range(2000)} for stream in range(4)]
    assert [len(s) for s in streams] == [2000] * 4
    assert len(set.union(*streams)) == 8000
    assert all(0 <= seed < 2**32 for seed in streams[0])
    assert not streams[0] & {scene_seed(1, 0, i) for i in range(2000)}


# Whole worlds in processes of their own.


def _tabletop(tiny_backbone, workers, slots):
    from lastr1.model.codec import Codec
    from lastr1.model.prompt import tiny_tokenizer
    from lastr1.model.weights import build

    config = EnvConfig(suite="tabletop", image=32)
    with EnvPool(partial(make_env, config), slots=slots, workers=workers) as pool:
        torch.manual_seed(0)
        codec = Codec(q01=(-1.0,) * 3 + (0.0,), q99=(1.0,) * 4, mask=(True,) * 3 + (False,))
        policy = PolicyConfig(image=32, crop=1.0, chunk=16)
        bundle = build(tiny_backbone, policy, tiny_tokenizer(pool.tasks), pool.spec, codec)
        starts = [Start(task=i % 4, seed=scene_seed(0, 0, i)) for i in range(5)]
        starts.append(Start(task=1, state=3))
        return [facts(e) for e in Player(bundle, pool, slots).play(starts, noise=11)]


@pytest.mark.slow
def test_same_seed_same_rollout_with_any_number_of_workers():
    """DESIGN invariant 11."""
    from lastr1.config import BackboneConfig

    backbone = BackboneConfig(
        hidden=32, layers=1, heads=2, kv_heads=1, head_dim=16, mlp=32,
        vision_hidden=16, vision_layers=1, vision_heads=2, vision_mlp=16, patch=8, deepstack=(),
    )  # fmt: skip
    here = _tabletop(backbone, workers=0, slots=4)
    assert len(here) == 6
    assert _tabletop(backbone, workers=1, slots=4) == here
    assert _tabletop(backbone, workers=3, slots=4) == here
