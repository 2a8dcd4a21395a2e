"""DINOv3 as a teacher: the CLS token after the final norm (ALGORITHM.md 6.2).

The only file of the demonstrations that knows transformers.  A model is a folder as the hub stores it, of a
ViT or of a ConvNeXt (whose averaged picture takes the place of the CLS token); only safetensors are read.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, HFValidationError, StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import DINOv3ConvNextModel, DINOv3ViTModel
from transformers.utils import logging

from lastr1.demos.vision import Preparation, VisionTeacher
from lastr1.types import UserError

MODELS: dict[str, Any] = {"dinov3_vit": DINOv3ViTModel, "dinov3_convnext": DINOv3ConvNextModel}
"""`model_type` of a config.json -> its class"""
MODES = {2: "bilinear", 3: "bicubic"}
"""`resample` of a preprocessor_config.json -> interpolation"""


def open_dinov3(name: str, device: torch.device) -> VisionTeacher:
    """The model in a directory, or by its name on the hub.  `UserError` when it is neither, or is damaged."""
    directory = Path(name).expanduser()
    if not directory.is_dir():
        directory = _downloaded(name)
    network = _network(directory)
    return VisionTeacher(network, _preparation(directory), device, name="dinov3", read=_cls)


def _cls(network: nn.Module, pixels: Tensor) -> Tensor:
    vectors: Tensor = network(pixel_values=pixels).pooler_output
    return vectors


def _downloaded(name: str) -> Path:
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
    except HFValidationError:
        raise UserError(f"no directory {name}: correct --warmup.teacher dinov3:DIRECTORY") from None
    except GatedRepoError:
        raise UserError(
            f"{name} asks for its licence to be accepted: do so at https://huggingface.co/{name}, "
            f"then hf auth login"
        ) from None
    except OSError as error:
        reason = str(error).split("\n")[0]
        raise UserError(
            f"{name} is no directory here and cannot be fetched from the hub ({reason}): download it where "
            f"there is a network, and use --warmup.teacher dinov3:DIRECTORY"
        ) from None


def _network(directory: Path) -> nn.Module:
    kind = _json(directory / "config.json", "model_type")["model_type"]
    if kind not in MODELS:
        raise UserError(
            f"{directory} holds a {kind}, not a DINOv3: use one of dinov3-vit* or dinov3-convnext*"
        )
    try:
        with _quiet():
            network, info = MODELS[kind].from_pretrained(
                directory,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
    except (OSError, RuntimeError, SafetensorError, StrictDataclassError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"{directory} cannot be read ({reason}): download it again") from None
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])[0]
        raise UserError(f"{directory} lacks weights ({missing}, ...): download it again")
    found: nn.Module = network
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars and no reports of transformers' own: what is wrong is said in one line."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _preparation(directory: Path) -> Preparation:
    """What the model's own preprocessor_config.json says; without one, whole frames of 256 x 256 (6.2)."""
    path = directory / "preprocessor_config.json"
    if not path.is_file():
        return Preparation()
    facts = _json(path)
    try:
        return Preparation(
            height=int(facts["size"]["height"]),
            width=int(facts["size"]["width"]),
            mode=MODES[facts["resample"]],
            mean=tuple(map(float, facts["image_mean"])),
            std=tuple(map(float, facts["image_std"])),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} does not say how a whole frame is prepared ({error!r}): size.height, size.width, "
            f"resample 2 or 3, image_mean and image_std are needed"
        ) from None


def _json(path: Path, *needed: str) -> dict[str, Any]:
    """An object that has the `needed` keys."""
    try:
        values: dict[str, Any] = json.loads(path.read_text())
        if not isinstance(values, dict):
            raise TypeError("no object")
        for key in needed:
            values[key]
    except FileNotFoundError:
        raise UserError(
            f"{path.parent} holds no {path.name}: it is not a DINOv3 as the hub stores it"
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error!r}): download it again") from None
    return values
