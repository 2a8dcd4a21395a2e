"""A tiny policy, observations and decisions for every test; no network beyond this machine.

Axes: B decisions, K stop candidates, G latents per group, L = K*G, D width, N action tokens.
"""

import socket

import numpy as np
import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("quick", deadline=None, derandomize=True, database=None)
settings.load_profile("quick")

TEXT = "put the red green blue block cube into on of box tray then push it left right slowly"
WORDS = TEXT.split()


class LeavesThisMachine(OSError):
    """A test tried to open a connection to another machine."""


def _stays_here(address):
    if not isinstance(address, tuple):  # a path: unix sockets of multiprocessing
        return True
    host = str(address[0])
    return host in ("localhost", "::1", "") or host.startswith("127.")


@pytest.fixture(scope="session", autouse=True)
def only_loopback():
    """Any connection that leaves this machine is refused."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            original = getattr(socket.socket, name)

            def guarded(self, address, original=original):
                if not _stays_here(address):
                    raise LeavesThisMachine(f"tests may not connect to {address}")
                return original(self, address)

            patch.setattr(socket.socket, name, guarded)
        yield


@pytest.fixture
def generator():
    """`generator(seed)`: a torch generator of its own."""
    return lambda seed=0: torch.Generator().manual_seed(seed)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def robot():
    """`robot(cameras)`: three normalised action dimensions and a gripper."""
    from lastr1.spec import Camera, Dim, RobotSpec

    def make(cameras=1):
        moves = tuple(Dim(name=n, unit="controller", low=-1.0, high=1.0) for n in ("x", "y", "yaw"))
        gripper = Dim(name="gripper", unit="open fraction", low=0.0, high=1.0, binary=True)
        return RobotSpec(
            name="toy",
            cameras=tuple(Camera(name=f"camera{i}", height=64, width=64) for i in range(cameras)),
            state=(Dim(name="x", unit="m", low=-1.0, high=1.0),),
            action=(*moves, gripper),
            rate=20.0,
            hold=(0.0, 0.0, 0.0, 1.0),
        )

    return make


@pytest.fixture(scope="session")
def tiny(robot):
    """`tiny(seed=0, cameras=1, **policy_knobs)`: a random Qwen3-VL, 2 layers, D = 64, N = 12.

    Images of 64 pixels.  Weights are large enough that every mask, position and input matters.
    """
    from lastr1.config import BackboneConfig, PolicyConfig
    from lastr1.model.codec import Codec
    from lastr1.model.prompt import tiny_tokenizer
    from lastr1.model.weights import build

    backbone = BackboneConfig(
        hidden=64, layers=2, heads=4, kv_heads=2, head_dim=16, mlp=96,
        vision_hidden=32, vision_layers=2, vision_heads=2, vision_mlp=48, deepstack=(0,),
    )  # fmt: skip
    codec = Codec(q01=(-0.9, -0.5, -1.0, 0.0), q99=(0.7, 0.8, 1.0, 1.0), mask=(True, True, True, False))
    tokenizer = tiny_tokenizer(WORDS)

    def make(*, seed=0, cameras=1, **knobs):
        knobs = {"image": 64, "crop": 1.0, "chunk": 3, **knobs}
        torch.manual_seed(seed)
        bundle = build(backbone, PolicyConfig(**knobs), tokenizer, robot(cameras), codec)
        with torch.no_grad():
            for name, weight in bundle.policy.named_parameters():
                if "embed_tokens" in name:
                    weight.normal_(std=0.3)
                elif weight.dim() > 1:
                    weight.normal_(std=weight[0].numel() ** -0.5)
        return bundle

    return make


@pytest.fixture(scope="session")
def observations():
    """`observations(count, seed=0, cameras=1)`: random images, instructions of 1 to 9 words."""
    from lastr1.types import Observation

    def make(count, seed=0, cameras=1):
        rng = np.random.default_rng(seed)
        return [
            Observation(
                images={
                    f"camera{i}": rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for i in range(cameras)
                },
                state=rng.uniform(-1, 1, 1).astype(np.float32),
                instruction=" ".join(rng.choice(WORDS, 1 + (4 * row + int(rng.integers(2))) % 9)),
            )
            for row in range(count)
        ]

    return make


@pytest.fixture(scope="session")
def noise():
    """`noise(bundle, seeds)`: the randomness of a batch of decisions."""
    from lastr1.model.policy import Noise

    def make(bundle, seeds):
        policy = bundle.policy
        return Noise.draw(
            seeds,
            latents=policy.config.latents,
            width=policy.backbone.width,
            actions=policy.action_tokens,
        )

    return make


@pytest.fixture(scope="session")
def played(observations, noise):
    """`played(bundle, count, seed=0)`: `count` decisions, one row each, as a rollout stores them."""
    from lastr1.rollout.batch import Decided, tree_map

    def make(bundle, count, seed=0):
        seen = observations(count, seed, len(bundle.spec.cameras))
        drawn = noise(bundle, range(1000 * seed, 1000 * seed + count))
        decision = bundle.policy.decide(bundle.prompts.build(seen), drawn)
        return [
            Decided(
                instruction=o.instruction,
                pixels=bundle.prompts.views(o),
                thought=tree_map(lambda x, i=i: x[i], decision.thought),
                tokens=decision.tokens[i],
                terms=tree_map(lambda x, i=i: x[i], decision.terms),
                rules=decision.rules[i],
            )
            for i, o in enumerate(seen)
        ]

    return make


# One layer and a handful of episodes, so that a whole job takes a second.
TOY = {
    "base": "scratch", "threads": 1, "processes": 1,
    "env.slots": 4, "env.workers": 0, "env.image": 32,
    "policy.image": 32,
    "backbone.hidden": 32, "backbone.layers": 1, "backbone.heads": 2, "backbone.kv-heads": 1,
    "backbone.head-dim": 16, "backbone.mlp": 32, "backbone.patch": 8, "backbone.vision-hidden": 16,
    "backbone.vision-layers": 1, "backbone.vision-heads": 2, "backbone.vision-mlp": 16,
    "warmup.iterations": 2, "warmup.batch": 4,
    "reinforce.iterations": 2, "reinforce.episodes": 4, "reinforce.checkpoint-every": 1,
    "evaluate.episodes": 5,
}  # fmt: skip


@pytest.fixture(scope="session")
def toy():
    """Knobs of a toy experiment, as they are typed."""
    knobs = [str(x) for knob, value in TOY.items() for x in (f"--{knob}", value)]
    return [*knobs, "--reinforce.recompute-old"]


@pytest.fixture
def complaint():
    """`complaint(stderr)`: the one line that is not about progress."""
    jobs = ("collect ", "warm-up: ", "train: ", "evaluate: ", "demonstrations: ", "serve: ")

    def find(err):
        lines = [line for line in err.splitlines() if not line.startswith(jobs)]
        assert len(lines) == 1, err
        assert lines[0].startswith("lastr1: ")
        return lines[0]

    return find


@pytest.fixture
def refused(capsys, complaint):
    """`refused(*arguments)`: the line on stderr; checks that it is the only one, and the exit code 2."""
    from lastr1.cli import main

    def check(*arguments):
        capsys.readouterr()
        assert main([str(a) for a in arguments]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        return complaint(err)

    return check


# What Hugging Face's own programs write, at toy size: the layouts that `weights.load` has to read.

QWEN_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>", "<think>", "</think>",
)  # fmt: skip


@pytest.fixture(scope="session")
def qwen_folder():
    """`qwen_folder(directory, tied=True, ours=False, rows=640)`: a Qwen3-VL as downloaded, bf16 in shards.

    With `ours`, the layout of a released checkpoint: our tokens, a value head, the statistics of a robot with
    three moves and a gripper.
    """
    import json

    from huggingface_hub import save_torch_state_dict
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    from lastr1.model.heads import value_head

    def tokenizer(ours):
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        words = Tokenizer(models.BPE({c: i for i, c in enumerate(letters)}, []))
        words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        actions = [f"<action_{i}>" for i in range(256)]
        latents = ["<latent_start>", "<latent_end>", "<latent_pad>"]
        names = [*QWEN_TOKENS, *actions, *latents] if ours else QWEN_TOKENS
        words.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in names])
        return words

    def make(directory, *, tied=True, ours=False, rows=640):
        words = tokenizer(ours)
        rope = {"rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True}
        config = Qwen3VLConfig(
            text_config={
                "vocab_size": rows, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
                "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "rope_theta": 5e6,
                "rope_scaling": rope, "tie_word_embeddings": tied, "dtype": "bfloat16",
            },
            vision_config={
                "depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "out_hidden_size": 32,
                "num_position_embeddings": 256, "deepstack_visual_indexes": [0], "dtype": "bfloat16",
            },
            image_token_id=words.token_to_id("<|image_pad|>"),
            tie_word_embeddings=tied,
        )  # fmt: skip
        torch.manual_seed(1)
        weights = Qwen3VLForConditionalGeneration(config).state_dict()
        if tied:
            del weights["lm_head.weight"]
        if ours:
            weights.update({f"value_head.mlp.{k}": v for k, v in value_head(32).state_dict().items()})
        directory.mkdir(parents=True)
        half = {name: tensor.bfloat16() for name, tensor in weights.items()}
        save_torch_state_dict(half, directory, max_shard_size=70_000)
        config.save_pretrained(directory)
        words.save(str(directory / "tokenizer.json"))
        (directory / "generation_config.json").write_text("{}")
        if ours:
            q01, q99, mask = [-0.9, -0.5, -1.0, 0.0], [0.7, 0.8, 1.0, 1.0], [True, True, True, False]
            entry = {"action": {"q01": q01, "q99": q99, "mask": mask}, "state": {}, "num_transitions": 9}
            facts = {"toy_suite": entry, "later": {}}
            (directory / "dataset_statistics.json").write_text(json.dumps(facts))
        return directory

    return make
