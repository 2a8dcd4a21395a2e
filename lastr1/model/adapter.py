"""LoRA: matrices A, B of low rank beside the attention projections of a frozen backbone.

A projection W becomes W + (alpha / rank) B A (Hu et al. 2021, Eq. 3); B starts at 0, so that the policy
starts unchanged.  The only file that knows peft, which is imported where matrices are put in: a policy into
which they are merged needs it no more.  Axes: I inputs, O outputs, R rank.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lastr1.config import AdapterConfig
from lastr1.knobs import differences, from_dict, to_dict
from lastr1.model.backbone import Backbone
from lastr1.model.hub import OWN, read_json, understood
from lastr1.model.shards import check_fit, fingerprint, read_file, write_file
from lastr1.types import UserError

MATRICES = "adapter_model.safetensors"
"""peft's name, beside its adapter_config.json"""
VALUE = "value_head.safetensors"
"""the value head, which is trained in full"""
_LANGUAGE = r"model\.language_model\.layers\.\d+\.self_attn\.[qkvo]_proj"
_VISION = r"model\.visual\.blocks\.\d+\.attn\.(qkv|proj)"
_PREFIX = "base_model.model."  # of names in peft's file
_ONLY = "default"  # peft could hold several


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """What lies over which weights."""

    config: AdapterConfig
    base: Path
    """folder of the policy or model below"""
    sha256: str
    """of the weight files in it"""


def new_adapter(config: AdapterConfig, base: Path) -> Adapter:
    """An adapter over what `base` holds now."""
    return Adapter(config=config, base=base.resolve(), sha256=fingerprint(base))


def has_adapter(directory: Path) -> bool:
    """Whether a folder holds an adapter, which lies over a base elsewhere."""
    if not (directory / OWN).is_file():
        return False
    facts = read_json(directory, OWN)
    with understood(directory / OWN):
        return "adapter" in facts


def read_adapter(directory: Path) -> Adapter:
    """What lies over what, by the facts of a folder."""
    facts = read_json(directory, OWN)
    with understood(directory / OWN):
        config = from_dict(AdapterConfig, facts["adapter"])
        base, sha256 = (directory / facts["base"]["path"]).resolve(), str(facts["base"]["sha256"])
        if config.rank == 0:
            raise ValueError("an adapter of rank 0")
    return Adapter(config=config, base=base, sha256=sha256)


def check_base(directory: Path, adapter: Adapter) -> None:
    """`UserError` when what the adapter in `directory` lies over is gone, or is another by now."""
    base = adapter.base
    if not base.is_dir():
        raise UserError(
            f"{directory} is an adapter over {base}, which is gone: put it back, or correct base.path in "
            f"{OWN}"
        )
    found = fingerprint(base)
    if found != adapter.sha256:
        raise UserError(
            f"{directory} is an adapter over other weights than {base} holds now (sha256 "
            f"{adapter.sha256[:12]} against {found[:12]}): put those back, or correct base.path in {OWN}"
        )


def check_wanted(directory: Path, found: AdapterConfig, wanted: AdapterConfig) -> None:
    """`UserError` when the adapter in `directory` cannot be continued as `wanted`."""
    if found != wanted:
        raise UserError(
            f"{directory} holds another adapter ({'; '.join(differences(found, wanted))}): use its knobs, or "
            f"merge it with lastr1 convert"
        )


def described(adapter: Adapter) -> dict[str, Any]:
    """The facts that `read_adapter` reads."""
    return {
        "adapter": to_dict(adapter.config),
        "base": {"path": str(adapter.base), "sha256": adapter.sha256},
    }


def attach(backbone: Backbone, config: AdapterConfig) -> None:
    """Freeze the backbone and put trainable matrices beside its projections (seed torch beforehand).

    `UserError` when peft is not installed.
    """
    settings = _settings(config, "")
    from peft import inject_adapter_in_model

    inject_adapter_in_model(settings, backbone.net, _ONLY)  # it freezes the rest
    for matrix in matrices(backbone).values():
        matrix.data = matrix.data.float()  # peft takes the base's type, and bf16 forgets small steps


def _settings(config: AdapterConfig, base: str) -> Any:
    try:
        from peft import LoraConfig
    except ModuleNotFoundError as error:
        raise UserError(f"LoRA needs peft ({error}): pip install 'lastr1[lora]'") from None
    return LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=0.0,
        target_modules=_projections(config),
        base_model_name_or_path=base,
    )


def _projections(config: AdapterConfig) -> str:
    return f"{_LANGUAGE}|{_VISION}" if config.vision else _LANGUAGE


def _adapted(backbone: Backbone) -> Iterator[tuple[str, Any]]:
    """Name and module of every projection with matrices beside it."""
    for name, _ in backbone.net.named_modules():
        if name.endswith(".base_layer"):
            layer = name.removesuffix(".base_layer")
            yield layer, backbone.net.get_submodule(layer)


def matrices(backbone: Backbone) -> dict[str, Tensor]:
    """A [R, I] and B [O, R] of every adapted projection, under the names of peft's file."""
    return {
        f"{_PREFIX}{layer}.{part}.weight": matrix[_ONLY].weight
        for layer, module in _adapted(backbone)
        for part, matrix in (("lora_A", module.lora_A), ("lora_B", module.lora_B))
    }


def plain(backbone: Backbone) -> dict[str, Tensor]:
    """Every weight under its Hugging Face name, with the matrices merged into it."""
    whole = {
        layer: module.base_layer.weight
        + _product(module.lora_A[_ONLY].weight, module.lora_B[_ONLY].weight, module.scaling[_ONLY])
        for layer, module in _adapted(backbone)
    }
    found = {}
    for name, tensor in backbone.net.state_dict().items():
        layer, _, kind = name.rpartition(".base_layer.")
        if ".lora_" not in name:
            found[f"{layer}.{kind}" if layer else name] = tensor
    return found | {f"{layer}.weight": weight.detach() for layer, weight in whole.items()}


def _product(a: Float[Tensor, "R I"], b: Float[Tensor, "O R"], scale: float) -> Float[Tensor, "O I"]:
    return scale * (b.float() @ a.float())


def write_adapter(directory: Path, backbone: Backbone, adapter: Adapter, value: Mapping[str, Tensor]) -> None:
    """The files that peft reads, and the value head."""
    settings = _settings(adapter.config, str(adapter.base))
    settings.inference_mode = True
    settings.save_pretrained(str(directory))
    write_file(directory / MATRICES, matrices(backbone), torch.float32)
    write_file(directory / VALUE, value, torch.float32)


def read_matrices(directory: Path, backbone: Backbone, config: AdapterConfig) -> dict[str, Tensor]:
    """Matrices for a backbone that has none yet.  `UserError` names the one that does not fit."""
    stored = read_file(directory / MATRICES)
    shapes = {}
    for name, module in backbone.net.named_modules():
        if isinstance(module, nn.Linear) and re.fullmatch(_projections(config), name):
            shapes[f"{_PREFIX}{name}.lora_A.weight"] = (config.rank, module.in_features)
            shapes[f"{_PREFIX}{name}.lora_B.weight"] = (module.out_features, config.rank)
    check_fit(shapes, stored, str(directory / MATRICES))
    return stored


@torch.no_grad()
def fill(backbone: Backbone, stored: Mapping[str, Tensor]) -> None:
    """Copy matrices into those that `attach` put in."""
    for name, matrix in matrices(backbone).items():
        matrix.copy_(stored[name])


@torch.no_grad()
def merge(backbone: Backbone, stored: Mapping[str, Tensor], config: AdapterConfig) -> None:
    """Add matrices to the weights of a backbone that has none beside them."""
    for name, a in stored.items():
        layer, lower, _ = name.removeprefix(_PREFIX).rpartition(".lora_A.weight")
        if lower:
            weight = backbone.net.get_parameter(f"{layer}.weight")
            b = stored[f"{_PREFIX}{layer}.lora_B.weight"]
            weight.copy_(weight.float() + _product(a, b, config.alpha / config.rank).to(weight.device))
