"""Reference models: arrays recorded from the authors' code, and our policy with the same weights.

Axes: B decisions, P padded prompt, K stop candidates, G latents per group, N action tokens.
"""

import json
import os
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from lastr1.config import PolicyConfig
from lastr1.model.codec import Codec
from lastr1.model.layout import Layout
from lastr1.model.policy import LatentPolicy
from lastr1.model.prompt import PromptBuilder
from lastr1.spec import Camera, Dim, RobotSpec

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = Path(os.environ.get("LASTR1_REFERENCE", ROOT.parent / "shared" / "reference"))
CASES = sorted(path.name for path in REFERENCE.glob("model_*") if (path / "case.json").is_file())
NOTHING = pytest.mark.skip(reason=f"no reference models in {REFERENCE}: set LASTR1_REFERENCE")
ATOL = 3e-4
"""hidden states, logits, log-probabilities of one token, values (README: 1e-3, one pass 3e-4)"""


class Watched(LatentPolicy):
    """Keeps the last reading, and dictates nothing."""

    def score(self, reading, *args, **kwargs):
        self.reading = reading
        return super().score(reading, *args, **kwargs)


class Case:
    """One folder: its arrays as tensors, and a policy with its weights."""

    def __init__(self, name):
        self.name, self.folder = name, REFERENCE / name
        self.differences: dict[str, float] = {}
        self.facts = json.loads((self.folder / "case.json").read_text())
        self.inputs, self.rollout, self.train, self.update = (
            self.arrays(f) for f in ("inputs", "rollout", "train", "update")
        )
        ids = self.inputs["input_ids"]
        self.batch, self.padded = len(ids), self.facts["prompt_pad_length"]
        self.groups = self.rollout["stop_logit"].shape[1]
        self.group = self.rollout["latents"].shape[1] // self.groups
        self.actions = self.rollout["greedy_ids"].shape[-1]
        self.first = self.facts["action_0"]
        self.layout = Layout(prompt=self.padded, groups=self.groups, group=self.group, actions=self.actions)

    def arrays(self, name):
        with np.load(self.folder / f"{name}.npz") as stored:
            return {key: torch.from_numpy(stored[key].copy()) for key in stored}

    @cached_property
    def prompts(self):
        """A builder whose words are the case's token ids."""
        facts = self.facts
        names = {"newline": "\n", "<pad>": "<|endoftext|>"}
        vocabulary = {names.get(name, name): i for name, i in facts["token_ids"].items()}
        vocabulary.update({f"<action_{k}>": self.first + k for k in range(256)})
        taken = set(vocabulary.values())
        vocabulary.update({f"w{i}": i for i in range(facts["vocab_size"]) if i not in taken})
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|endoftext|>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        special = [w for w in vocabulary if not w.startswith("w") and w not in ("user", "assistant")]
        tokenizer.add_special_tokens([AddedToken(w, normalized=False, special=True) for w in special])
        cameras = len(self.inputs["image_grid_thw"]) // self.batch
        size = facts["image_size"]
        dims = tuple(Dim(name=str(i), unit="controller", low=-1, high=1) for i in range(facts["action_dim"]))
        spec = RobotSpec(
            name=self.name,
            cameras=tuple(Camera(name=str(i), height=size, width=size) for i in range(cameras)),
            state=(),
            action=dims,
            rate=20.0,
            hold=(0.0,) * len(dims),
        )
        patch = facts["image_processor"]["patch_size"]
        return PromptBuilder(tokenizer, spec, image=size, crop=1.0, patch=patch)

    def prompt(self, *, extra=0):
        words = [" ".join(f"w{i}" for i in row) for row in self.facts["prompt_text_ids"]]
        return pad(self.prompts.batch(words, self.inputs["images"].numpy()), self.padded + extra)

    @lru_cache(maxsize=8)  # noqa: B019  (a case lives as long as the module)
    def policy(self, eval_stop="first", stop="released"):
        from transformers import Qwen3VLConfig

        from lastr1.model.backbone import Backbone
        from lastr1.model.weights import fill

        facts = self.facts
        config = PolicyConfig(
            stop_candidates=self.groups,
            latents_per_group=self.group,
            chunk=facts["action_chunk"],
            temperature=facts["temperature"],
            latent_policy="deterministic",
            latent_sigma=facts["update"]["latent_sigma"],
            stop_likelihood=stop,
            eval_stop=eval_stop,
            stop_threshold=facts["eval_threshold"],
            image=facts["image_size"],
            crop=1.0,
        )
        backbone = Backbone(Qwen3VLConfig.from_pretrained(self.folder))
        policy = Watched(backbone, config, self.prompts.tokens, action_tokens=self.actions)
        fill(policy, load_file(self.folder / "model.safetensors"), self.name)
        return policy

    def check(self, name, ours, theirs, atol=ATOL):
        assert ours.shape == theirs.shape, name
        difference = float((ours.detach() - theirs).abs().max())
        self.differences[name] = max(difference, self.differences.get(name, 0.0))
        assert difference < atol, f"{name}: differs by {difference}"

    def codec(self):
        stats = self.facts["action_stats"]
        return Codec(**{key: tuple(stats[key]) for key in ("q01", "q99", "mask")})

    def robot(self, ids):
        """Token ids -> robot units [..., C, A]."""
        shape = (*ids.shape[:-1], self.facts["action_chunk"], self.facts["action_dim"])
        return torch.from_numpy(self.codec().decode((ids - self.first).reshape(shape).numpy())).double()


def pad(prompt, length):
    more = (length - prompt.token_ids.shape[1], 0)
    ids = torch.nn.functional.pad(prompt.token_ids, more)
    return replace(prompt, token_ids=ids, mask=torch.nn.functional.pad(prompt.mask, more))


@pytest.fixture(scope="session", params=CASES or [pytest.param("none", marks=NOTHING)])
def case(request):
    """Every `model_*` folder; `-s` prints the largest difference of every array at the end."""
    found = Case(request.param)
    yield found
    for array, difference in found.differences.items():
        print(f"{found.name:22} {array:44} {difference:.1e}")
