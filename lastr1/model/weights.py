"""A policy on disk: Hugging Face layout (config, model, tokenizer, card) and what a robot needs besides.

`statistics.json` holds the action percentiles in the released schema; `lastr1.json` the policy's knobs, the
robot spec, the scale of the latents and the teacher's channels.  A folder without `lastr1.json` is a released
checkpoint or a downloaded Qwen3-VL: what it does not say is asked of the caller.  No pickle anywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from lastr1.config import EVERY_WEIGHT, AdapterConfig, BackboneConfig, PolicyConfig
from lastr1.knobs import from_dict, to_dict
from lastr1.model import adapter as lora
from lastr1.model import hub
from lastr1.model.backbone import Backbone
from lastr1.model.codec import Codec
from lastr1.model.hub import replacing, understood
from lastr1.model.network import HEAD, draw_rows, read_backbone
from lastr1.model.policy import LatentPolicy
from lastr1.model.prompt import PromptBuilder, add_policy_tokens, knows_policy, token_id
from lastr1.model.shards import SHARD, check_fit, read_file, read_tensors, source_of, write_tensors
from lastr1.model.sizes import scratch_config
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
    """teacher channels that the latents were taught (empty: not taught, all, or chosen frame by frame)"""
    teacher: str = "thumbnail"
    """identity of that teacher (older files do not say: there was this one)"""
    bare: bool = False
    """a downloaded Qwen3-VL that has not been taught to think or act"""
    adapter: lora.Adapter | None = None
    """the LoRA matrices that are trained in place of the backbone (None: it has none of its own)"""
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


def with_channels(bundle: Bundle, channels: tuple[int, ...], teacher: str = "thumbnail") -> Bundle:
    """The same policy, remembering which channels of which teacher its latents were taught."""
    return replace(bundle, channels=channels, teacher=teacher)


def tensors(policy: LatentPolicy) -> dict[str, Tensor]:
    """Every parameter under its Hugging Face name, an adapter merged into it; a tied head is left out."""
    tied = _tied(policy.backbone.net.config)
    found = {k: v for k, v in lora.plain(policy.backbone).items() if not (k == HEAD and tied)}
    return found | _value_tensors(policy)


def _value_tensors(policy: LatentPolicy) -> dict[str, Tensor]:
    return {_VALUE + k: v for k, v in policy.value_head.state_dict().items()}


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
    if own:
        hub.write_json(directory / hub.OWN, _facts(bundle))


def _facts(bundle: Bundle) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "policy": to_dict(bundle.policy.config),
        "spec": to_dict(bundle.spec),
        "latent_rms": bundle.policy.latent_rms,
        "channels": bundle.channels,
        "teacher": bundle.teacher,
    }


def write_trained(bundle: Bundle, directory: Path) -> None:
    """The files of a policy; of one with an adapter, only what lies over its base."""
    if bundle.adapter is None:
        write(bundle, directory)
        return
    lora.write_adapter(directory, bundle.policy.backbone, bundle.adapter, _value_tensors(bundle.policy))
    hub.write_statistics(directory, bundle.codec, bundle.spec)
    hub.write_json(directory / hub.OWN, {**_facts(bundle), **lora.described(bundle.adapter)})


def load(
    directory: Path,
    *,
    policy: PolicyConfig | None = None,
    robot: RobotSpec | None = None,
    codec: Codec | None = None,
    dtype: torch.dtype = torch.float32,
    adapter: AdapterConfig = EVERY_WEIGHT,
) -> Bundle:
    """Read what `save` wrote; `policy` replaces the stored knobs (a base that learns to think otherwise).

    With a `robot`, a released checkpoint can be read too, which does not say what it drives; and with a
    `codec` also a downloaded Qwen3-VL, which has no action statistics, no value head and none of our tokens
    (their rows and the value head are drawn: seed torch beforehand).  `dtype` is that of the backbone.

    An `adapter` is put over what was read, or continued if `directory` holds one; without, a stored one is
    merged into its base.

    `UserError` names the file that is missing, damaged or does not fit.
    """
    if lora.has_adapter(directory):
        return _load_over_base(directory, policy, dtype, adapter)
    if robot is not None and is_foreign(directory):
        bundle = _load_foreign(directory, policy or hub.RELEASED, robot, codec, dtype)
    else:
        bundle = _load_own(directory, policy, dtype)
    if not adapter.rank:
        return bundle
    if bundle.bare:
        raise UserError(f"{directory} has no action tokens that an adapter could lie over: lastr1 convert it")
    lora.attach(bundle.policy.backbone, adapter)
    return replace(bundle, adapter=lora.new_adapter(adapter, directory))


def _load_own(directory: Path, policy: PolicyConfig | None, dtype: torch.dtype) -> Bundle:
    spec, rms, taught = _read_facts(directory)
    policy = policy or stored_policy(directory)
    codec = hub.read_codec(directory)
    stored = read_tensors(directory)
    tokenizer = hub.read_tokenizer(directory)
    net = read_backbone(directory, tokenizer, stored, dtype)
    bundle = _assemble(net, policy, tokenizer, spec, codec)
    fill(bundle.policy, stored, str(source_of(directory)))
    bundle.policy.calibrate(rms)
    return with_channels(bundle, *taught)


def _read_facts(directory: Path) -> tuple[RobotSpec, float, tuple[tuple[int, ...], str]]:
    facts = hub.read_json(directory, hub.OWN)
    with understood(directory / hub.OWN):
        if facts["format"] != _FORMAT:
            raise UserError(f"{directory / hub.OWN}: not a lastr1 policy of format {_FORMAT}")
        teacher = str(facts["teacher"]) if "teacher" in facts else Bundle.teacher
        taught = (tuple(facts["channels"]), teacher)
        return from_dict(RobotSpec, facts["spec"]), float(facts["latent_rms"]), taught


def _load_over_base(
    directory: Path, policy: PolicyConfig | None, dtype: torch.dtype, wanted: AdapterConfig
) -> Bundle:
    spec, rms, taught = _read_facts(directory)
    found = lora.read_adapter(directory)
    lora.check_base(directory, found)
    if wanted.rank:
        lora.check_wanted(directory, found.config, wanted)
    codec, policy = hub.read_codec(directory), policy or stored_policy(directory)
    bundle = load(found.base, policy=policy, robot=spec, codec=codec, dtype=dtype)
    network, path = bundle.policy, directory / lora.VALUE
    stored, value = lora.read_matrices(directory, network.backbone, found.config), read_file(path)
    _copy(_value_tensors(network), value, str(path))
    if wanted.rank:
        lora.attach(network.backbone, wanted)
        lora.fill(network.backbone, stored)
    else:
        lora.merge(network.backbone, stored, found.config)
    network.calibrate(rms)
    bundle = replace(bundle, adapter=found if wanted.rank else None, remarks=())
    return with_robot(with_channels(bundle, *taught), spec, codec)


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
    return not (directory / hub.OWN).is_file() and (directory / hub.CONFIG).is_file()


def stored_policy(directory: Path) -> PolicyConfig:
    """The knobs a policy on disk was taught with."""
    if is_foreign(directory):
        return hub.RELEASED
    facts = hub.read_json(directory, hub.OWN)
    with understood(directory / hub.OWN):
        return from_dict(PolicyConfig, facts["policy"])


def fill(policy: LatentPolicy, stored: Mapping[str, Tensor], source: str) -> None:
    """Copy tensors into the policy; every name and shape must fit, or nothing is changed."""
    _copy(tensors(policy), stored, source)


@torch.no_grad()
def _copy(wanted: Mapping[str, Tensor], stored: Mapping[str, Tensor], source: str) -> None:
    check_fit({name: tensor.shape for name, tensor in wanted.items()}, stored, source)
    for name, tensor in wanted.items():
        tensor.copy_(stored[name])


def _tied(config: Any) -> bool:
    return bool(config.tie_word_embeddings)
