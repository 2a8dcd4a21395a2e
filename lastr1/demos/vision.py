"""Frozen vision networks as teachers: pixels in, one vector per frame out (ALGORITHM.md 6.2).

Axes: F frames, H rows, W columns, h rows and w columns of a network's input, Z teacher width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from lastr1.types import Array, Floats

BATCH = 32
"""frames that go through a network together"""


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How a frame becomes the input of a network: the whole frame, resized (antialiased), normalised."""

    height: int = 256
    width: int = 256
    mode: str = "bilinear"
    """`bilinear` or `bicubic`"""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    """of ImageNet, per channel, on a scale of 0..1"""
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __call__(self, frames: UInt8[Tensor, "F H W 3"]) -> Float[Tensor, "F 3 h w"]:
        """Frames on any device."""
        x = frames.permute(0, 3, 1, 2).float() / 255
        if x.shape[2:] != (self.height, self.width):
            size = (self.height, self.width)
            x = nn.functional.interpolate(x, size, mode=self.mode, antialias=True)
        mean, std = (x.new_tensor(row)[:, None, None] for row in (self.mean, self.std))
        return (x - mean) / std


class VisionTeacher:
    """A frozen network on a device."""

    def __init__(
        self,
        network: nn.Module,
        prepare: Preparation,
        device: torch.device,
        *,
        name: str,
        read: Callable[[nn.Module, Float[Tensor, "F 3 h w"]], Float[Tensor, "F Z"]],
    ) -> None:
        self.network = network.to(device).eval().requires_grad_(False)
        self.prepare, self.device, self.read = prepare, device, read
        self.identity = f"{name} {fingerprint(network)} {prepare}"

    @torch.no_grad()
    def embed(self, frames: Array) -> Floats:
        """uint8 [F, H, W, 3] -> f32 [F, Z]."""
        parts = []
        for first in range(0, len(frames), BATCH):
            pixels = torch.from_numpy(np.ascontiguousarray(frames[first : first + BATCH]))
            parts.append(self.read(self.network, self.prepare(pixels.to(self.device))).float().cpu())
        vectors: Floats = torch.cat(parts).numpy()
        return vectors


def fingerprint(network: nn.Module) -> str:
    """Hash of every weight and buffer, by name."""
    key = blake2b(digest_size=16)
    for name, tensor in sorted(network.state_dict().items()):
        key.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        key.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return key.hexdigest()
