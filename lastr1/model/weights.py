"""A policy on disk: Hugging Face layout (config, model, tokenizer, card) and what a robot needs besides.

`statistics.json` holds the action percentiles in the released schema; `lastr1.json` the policy's knobs, the
robot spec, the scale of the latents and the teacher's channels.  A folder without `lastr1.json` is a released
checkpoint or a downloaded Qwen3-VL: what it does not say is asked of the caller.  No pickle anywhere.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from lastr1.config import BackboneConfig, PolicyConfig, from_dict, to_dict
from lastr1.model import hub
from lastr1.model.backbone import Backbone
from lastr1.model.codec import Codec
from lastr1.model.hub import understood
from lastr1.model.network import HEAD, draw_rows, read_backbone
from lastr1.model.policy import LatentPolicy
from lastr1.model.prompt import PromptBuilder, add_policy_tokens, knows_policy, token_id
from lastr1.model.shards import SHARD, read_tensors, source_of, write_tensors
from lastr1.model.sizes import scratch_config
from lastr1.spec import RobotSpec
from lastr1.types import UserError

_VALUE = "value_head.mlp."
_FORMAT = 1
_OWN = "lastr1.json"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A policy and all that is needed to run it on its robot."""

    policy: LatentPolicy
    prompts: PromptBuilder
    codec: Codec
    spec: RobotSpec
    channels: tuple[int, ...] = ()
    """teacher channels that the latents were taught (empty: not taught)"""
    bare: bool = False
    """a downloaded Qwen3-VL that has not been taught to think or act"""
    remarks: tuple[str, ...] = ()
    """what the folder it was read from did not hold, and what stands in for it"""


def build(
    backbone: BackboneConfig, policy: PolicyConfig, tokenizer: Tokenizer, spec: RobotSpec, codec: Codec
) -> Bundle:
    """A policy with random weights (seed torch beforehand)."""
    names = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    config = scratch_config(
        backbone,
        vocabulary=tokenizer.get_vocab_size(),
        image=policy.image,
        special={name: token_id(tokenizer, name) for name in names},
    )
    return _assemble(Backbone(config), policy, tokenizer, spec, codec)


def _assemble(
    net: Backbone, policy: PolicyConfig, tokenizer: Tokenizer, spec: RobotSpec, codec: Codec
) -> Bundle:
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
    found = {k: v for k, v in net.state_dict().items() if not (k == HEAD and _tied(net.config))}
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


def write(
    bundle: Bundle,
    directory: Path,
    dtype: torch.dtype = torch.float32,
    *,
    own: bool = True,
    shard: int = SHARD,
) -> None:
    """The files of a policy, into an existing folder; `own=False` leaves out what only we read."""
    policy = bundle.policy
    found = tensors(policy)
    write_tensors(directory, found, dtype, shard=shard)
    config = policy.backbone.net.config
    for part in (config, config.text_config, config.vision_config):
        part.dtype = dtype
    config.save_pretrained(directory)
    hub.write_tokenizer(directory, bundle.prompts.tokenizer)
    hub.write_statistics(directory, bundle.codec, bundle.spec)
    count = sum(tensor.numel() for tensor in found.values())
    hub.write_card(directory, bundle.spec, policy.config, bundle.codec, count)
    facts = {
        "format": _FORMAT,
        "policy": to_dict(policy.config),
        "spec": to_dict(bundle.spec),
        "latent_rms": policy.latent_rms,
        "channels": bundle.channels,
    }
    if own:
        hub.write_json(directory / _OWN, facts)


def load(
    directory: Path,
    *,
    policy: PolicyConfig | None = None,
    robot: RobotSpec | None = None,
    codec: Codec | None = None,
    dtype: torch.dtype = torch.float32,
) -> Bundle:
    """Read what `save` wrote; `policy` replaces the stored knobs (a base that learns to think otherwise).

    With a `robot`, a released checkpoint can be read too, which does not say what it drives; and with a
    `codec` also a downloaded Qwen3-VL, which has no action statistics, no value head and none of our tokens
    (their rows and the value head are drawn: seed torch beforehand).  `dtype` is that of the backbone.

    `UserError` names the file that is missing, damaged or does not fit.
    """
    if robot is not None and is_foreign(directory):
        return _load_foreign(directory, policy or hub.RELEASED, robot, codec, dtype)
    facts = hub.read_json(directory, _OWN)
    with understood(directory / _OWN):
        if facts["format"] != _FORMAT:
            raise UserError(f"{directory / _OWN}: not a lastr1 policy of format {_FORMAT}")
        spec = from_dict(RobotSpec, facts["spec"])
        rms, channels = float(facts["latent_rms"]), tuple(facts["channels"])
    policy = policy or stored_policy(directory)
    codec = hub.read_codec(directory)
    stored = read_tensors(directory)
    tokenizer = hub.read_tokenizer(directory)
    net = read_backbone(directory, tokenizer, stored, dtype)
    bundle = _assemble(net, policy, tokenizer, spec, codec)
    fill(bundle.policy, stored, str(source_of(directory)))
    bundle.policy.calibrate(rms)
    return replace(bundle, channels=channels)


def _load_foreign(
    directory: Path, policy: PolicyConfig, robot: RobotSpec, codec: Codec | None, dtype: torch.dtype
) -> Bundle:
    remarks = []
    tokenizer = hub.read_tokenizer(directory)
    bare = not knows_policy(tokenizer)
    if bare and codec is None:
        raise UserError(f"{directory} is a bare model, without action tokens: give it as --base of a warm-up")
    path = hub.statistics_of(directory)
    found = hub.read_codec(directory) if path is not None or codec is None else None
    if found is not None and len(found.q01) == len(robot.action):
        codec = found
    elif codec is not None:
        remarks.append(f"no action statistics of {robot.name}: those at hand are used")
    else:
        raise UserError(
            f"{path} is not about the {len(robot.action)} dimensions of {robot.name}: use another recipe"
        )
    new = add_policy_tokens(tokenizer) if bare else range(0)
    stored = read_tensors(directory)
    net = read_backbone(directory, tokenizer, stored, dtype)
    bundle = _assemble(net, policy, tokenizer, robot, codec)
    if not any(name.startswith(_VALUE) for name in stored):
        remarks.append("no value head: drawn")
        stored |= {k: v.clone() for k, v in tensors(bundle.policy).items() if k.startswith(_VALUE)}
    fill(bundle.policy, stored, str(source_of(directory)))
    if bare:
        remarks.append(f"no action or latent tokens: {len(new)} added, their rows drawn")
        draw_rows(net, new)
    return replace(bundle, bare=bare, remarks=tuple(f"{directory}: {remark}" for remark in remarks))


def is_foreign(directory: Path) -> bool:
    """A released checkpoint or a downloaded model: nothing says how it thinks, and about which robot."""
    return not (directory / _OWN).is_file() and (directory / hub.CONFIG).is_file()


def stored_policy(directory: Path) -> PolicyConfig:
    """The knobs a policy on disk was taught with."""
    if is_foreign(directory):
        return hub.RELEASED
    facts = hub.read_json(directory, _OWN)
    with understood(directory / _OWN):
        return from_dict(PolicyConfig, facts["policy"])


def fill(policy: LatentPolicy, stored: Mapping[str, Tensor], source: str) -> None:
    """Copy tensors into the policy; every name and shape must fit, or nothing is changed."""
    wanted = tensors(policy)
    for name in sorted(wanted.keys() ^ stored.keys()):
        raise UserError(f"{source}: tensor {name} is {'missing' if name in wanted else 'unknown'}")
    for name, tensor in wanted.items():
        if tensor.shape != stored[name].shape:
            raise UserError(f"{source}: {name} is {list(stored[name].shape)}, not {list(tensor.shape)}")
        if not stored[name].is_floating_point():
            raise UserError(f"{source}: {name} is quantised ({stored[name].dtype}): use an unquantised model")
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(stored[name])


def _tied(config: Any) -> bool:
    return bool(config.tie_word_embeddings)
