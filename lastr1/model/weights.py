"""A policy on disk: Hugging Face layout (config, model, tokenizer) and what a robot needs besides.

`statistics.json` holds the action percentiles in the released schema; `lastr1.json` the policy's knobs, the
robot spec, the scale of the latents and the teacher's channels.  No pickle anywhere.
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from tokenizers import Tokenizer
from torch import Tensor

from lastr1.config import BackboneConfig, PolicyConfig, from_dict, to_dict
from lastr1.model.backbone import Backbone, Qwen3VLConfig, stored_config, tiny_config
from lastr1.model.codec import Codec
from lastr1.model.policy import LatentPolicy
from lastr1.model.prompt import PromptBuilder, token_id
from lastr1.spec import RobotSpec
from lastr1.types import UserError

_VALUE = "value_head.mlp."
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A policy and all that is needed to run it on its robot."""

    policy: LatentPolicy
    prompts: PromptBuilder
    codec: Codec
    spec: RobotSpec
    channels: tuple[int, ...] = ()
    """teacher channels that the latents were taught (empty: not taught)"""


def build(
    backbone: BackboneConfig, policy: PolicyConfig, tokenizer: Tokenizer, spec: RobotSpec, codec: Codec
) -> Bundle:
    """A policy with random weights (seed torch beforehand)."""
    names = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    config = tiny_config(
        backbone,
        vocabulary=tokenizer.get_vocab_size(),
        image=policy.image,
        special={name: token_id(tokenizer, name) for name in names},
    )
    return _assemble(config, policy, tokenizer, spec, codec)


def _assemble(
    config: Qwen3VLConfig, policy: PolicyConfig, tokenizer: Tokenizer, spec: RobotSpec, codec: Codec
) -> Bundle:
    net = Backbone(config)
    prompts = PromptBuilder(tokenizer, spec, image=policy.image, crop=policy.crop, patch=net.patch)
    actions = policy.chunk * len(spec.action)
    return Bundle(
        policy=LatentPolicy(net, policy, prompts.tokens, action_tokens=actions),
        prompts=prompts,
        codec=codec,
        spec=spec,
    )


def with_robot(bundle: Bundle, spec: RobotSpec, codec: Codec) -> Bundle:
    """The same weights for another robot: prompts, action slots and statistics are its own."""
    config = bundle.policy.config
    bundle.policy.action_tokens = config.chunk * len(spec.action)
    prompts = PromptBuilder(
        bundle.prompts.tokenizer, spec, image=config.image, crop=config.crop, patch=bundle.prompts.patch
    )
    return replace(bundle, prompts=prompts, codec=codec, spec=spec)


def with_channels(bundle: Bundle, channels: tuple[int, ...]) -> Bundle:
    """The same policy, remembering which teacher channels its latents were taught."""
    return replace(bundle, channels=channels)


def tensors(policy: LatentPolicy) -> dict[str, Tensor]:
    """Every parameter under its Hugging Face name; a tied head is left out."""
    net = policy.backbone.net
    found = {k: v for k, v in net.state_dict().items() if not (k == "lm_head.weight" and _tied(net.config))}
    found.update({_VALUE + k: v for k, v in policy.value_head.state_dict().items()})
    return found


@contextlib.contextmanager
def replacing(directory: Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of `directory` at the end.

    What stood there stays whole until the new one is, and stays for good when filling fails.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    workplace = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
    new, old = workplace / "new", workplace / "old"
    try:
        new.mkdir()
        yield new
        if directory.exists():
            os.replace(directory, old)
        os.replace(new, directory)
    except BaseException:
        if old.exists() and not directory.exists():
            os.replace(old, directory)
        raise
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def save(bundle: Bundle, directory: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Write the policy in place of what stands at `directory`."""
    with replacing(directory) as new:
        write(bundle, new, dtype)


def write(bundle: Bundle, directory: Path, dtype: torch.dtype = torch.float32) -> None:
    """The files of a policy, into an existing folder."""
    policy = bundle.policy
    weights = {k: v.detach().to("cpu", dtype).contiguous() for k, v in tensors(policy).items()}
    # Written by Python, so that a full disk is an OSError like any other.
    (directory / "model.safetensors").write_bytes(serialize(weights, metadata={"format": "pt"}))
    policy.backbone.net.config.save_pretrained(directory)
    bundle.prompts.tokenizer.save(str(directory / "tokenizer.json"))
    codec = {"q01": bundle.codec.q01, "q99": bundle.codec.q99, "mask": bundle.codec.mask}
    _dump(directory / "statistics.json", {bundle.spec.name: {"action": codec}})
    facts = {
        "format": _FORMAT,
        "policy": to_dict(policy.config),
        "spec": to_dict(bundle.spec),
        "latent_rms": policy.latent_rms,
        "channels": bundle.channels,
    }
    _dump(directory / "lastr1.json", facts)


def _dump(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")


def load(directory: Path, *, policy: PolicyConfig | None = None) -> Bundle:
    """Read what `save` wrote; `policy` replaces the stored knobs (a base that learns to think otherwise).

    `UserError` names the file that is missing, damaged or does not fit.
    """
    facts = _read(directory, "lastr1.json")
    with _understood(directory / "lastr1.json"):
        if facts["format"] != _FORMAT:
            raise UserError(f"{directory / 'lastr1.json'}: not a lastr1 policy of format {_FORMAT}")
        spec = from_dict(RobotSpec, facts["spec"])
        rms, channels = float(facts["latent_rms"]), tuple(facts["channels"])
    policy = policy or stored_policy(directory)
    with _understood(directory / "statistics.json"):
        (statistics,) = _read(directory, "statistics.json").values()
        codec = Codec(**{key: tuple(statistics["action"][key]) for key in ("q01", "q99", "mask")})
    _read(directory, "config.json")
    _read(directory, "tokenizer.json")
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    bundle = _assemble(stored_config(directory), policy, tokenizer, spec, codec)
    _fill(bundle.policy, directory)
    bundle.policy.calibrate(rms)
    return Bundle(
        policy=bundle.policy,
        prompts=bundle.prompts,
        codec=codec,
        spec=spec,
        channels=channels,
    )


def stored_policy(directory: Path) -> PolicyConfig:
    """The knobs a policy on disk was taught with."""
    facts = _read(directory, "lastr1.json")
    with _understood(directory / "lastr1.json"):
        return from_dict(PolicyConfig, facts["policy"])


@contextlib.contextmanager
def _understood(path: Path) -> Iterator[None]:
    """Whatever does not fit inside a file of facts is a fault of that file."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged or of another version ({error!r}); use another") from None


def _fill(policy: LatentPolicy, directory: Path) -> None:
    path = _existing(directory, "model.safetensors")
    try:
        stored = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}); use another checkpoint") from None
    fill(policy, stored, str(path))


def fill(policy: LatentPolicy, stored: dict[str, Tensor], source: str) -> None:
    """Copy tensors into the policy; every name and shape must fit."""
    wanted = tensors(policy)
    for name in sorted(wanted.keys() ^ stored.keys()):
        raise UserError(f"{source}: tensor {name} is {'missing' if name in wanted else 'unknown'}")
    with torch.no_grad():
        for name, tensor in wanted.items():
            if tensor.shape != stored[name].shape:
                raise UserError(f"{source}: {name} is {list(stored[name].shape)}, not {list(tensor.shape)}")
            tensor.copy_(stored[name])


def _tied(config: Any) -> bool:
    return bool(config.tie_word_embeddings)


def _existing(directory: Path, name: str) -> Path:
    path = directory / name
    if not path.is_file():
        raise UserError(f"{directory} is not a policy: {name} is missing")
    return path


def _read(directory: Path, name: str) -> dict[str, Any]:
    path = _existing(directory, name)
    try:
        values: dict[str, Any] = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error})") from None
    return values
