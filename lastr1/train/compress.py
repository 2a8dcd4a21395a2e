"""Targets without a teacher: the base's own image tokens, averaged or compressed (ALGORITHM.md 8.5).

Axes: F frames, V image tokens of a frame, D width of the language model.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lastr1.demos.cache import PIECE
from lastr1.demos.teacher import Targets, constant_cosine
from lastr1.demos.vision import fingerprint
from lastr1.model.backbone import Prompt
from lastr1.model.images import MERGE, crop_resize, patchify
from lastr1.model.weights import Bundle
from lastr1.types import Array, Floats, UserError

LEARNT = ("strided_conv", "q_former")
"""targets that a compressor makes, which learns along"""


class Eyes:
    """The base's own vision tower before the warm-up, as a teacher: whole frames, image tokens of width D."""

    def __init__(self, bundle: Bundle, *, pooled: bool) -> None:
        self.backbone, self.image = bundle.policy.backbone, bundle.prompts.image
        self.pooled = pooled
        """the mean of the V tokens, in place of all of them"""
        self.device = bundle.policy.device
        tower = fingerprint(self.backbone.net.model.visual)
        self.identity = f"eyes {tower} {self.image} {'pooled' if pooled else 'tokens'}"

    @torch.no_grad()
    def embed(self, frames: Array) -> Floats:
        """uint8 [F, H, W, 3] -> f32 [F, D] if pooled, else [F, V*D]."""
        tokens = torch.cat([self._tokens(frames[i : i + PIECE]) for i in range(0, len(frames), PIECE)])
        views: Floats = (tokens.mean(1) if self.pooled else tokens.flatten(1)).numpy()
        return views

    def _tokens(self, frames: Array) -> Float[Tensor, "F V D"]:
        whole = torch.from_numpy(np.stack([crop_resize(frame, self.image, 1.0) for frame in frames]))
        side = self.image // self.backbone.patch
        ids = torch.full((len(frames), (side // MERGE) ** 2), self.backbone.image_token, device=self.device)
        seen = self.backbone.look(
            Prompt(
                token_ids=ids,
                mask=torch.ones_like(ids, dtype=torch.bool),
                patches=patchify(whole.to(self.device), self.backbone.patch).flatten(0, 1),
                grid=((side, side),),
            )
        )
        return seen.embeds.float().cpu()


def compressor(target: str, width: int, targets: Targets) -> nn.Module:
    """What makes a target of `width` numbers out of a view: nothing, where it is one already."""
    if target == "strided_conv":
        return StridedConv(width, targets.vectors.shape[1] // width)
    return QFormer(width) if target == "q_former" else nn.Identity()


class StridedConv(nn.Module):
    """Two pointwise convolutions, with one over the whole square of tokens between them."""

    INNER = 512

    def __init__(self, width: int, tokens: int) -> None:
        super().__init__()
        self.width, self.side = width, round(tokens**0.5)
        self.layers = nn.Sequential(
            nn.Conv2d(width, self.INNER, 1),
            nn.GELU(),
            nn.Conv2d(self.INNER, self.INNER, self.side, stride=self.side),
            nn.GELU(),
            nn.Conv2d(self.INNER, width, 1),
        )

    def forward(self, views: Float[Tensor, "*any VD"]) -> Float[Tensor, "*any D"]:
        """Tokens in raster order, one after the other."""
        grid = views.reshape(-1, self.side, self.side, self.width).permute(0, 3, 1, 2)
        found: Tensor = self.layers(grid).reshape(*views.shape[:-1], self.width)
        return found


class QFormer(nn.Module):
    """One learnt query that looks at the tokens in two blocks."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.query = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.blocks = nn.ModuleList(_CrossBlock(width) for _ in range(2))

    def forward(self, views: Float[Tensor, "*any VD"]) -> Float[Tensor, "*any D"]:
        """Tokens in raster order, one after the other; their places are in them already."""
        tokens = views.reshape(-1, views.shape[-1] // self.width, self.width)
        query = self.query.expand(len(tokens), -1, -1)
        for block in self.blocks:
            query = block(query, tokens)
        return query.reshape(*views.shape[:-1], self.width)


class _CrossBlock(nn.Module):
    HEADS = 8

    def __init__(self, width: int) -> None:
        super().__init__()
        if width % self.HEADS:
            raise UserError(f"the {self.HEADS} heads of a Q-Former do not divide {width}: use another target")
        self.of_query, self.of_tokens, self.of_sum = (nn.LayerNorm(width) for _ in range(3))
        self.attention = nn.MultiheadAttention(width, self.HEADS, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, query: Float[Tensor, "F 1 D"], tokens: Float[Tensor, "F V D"]) -> Tensor:
        seen = self.of_tokens(tokens)
        query = query + self.attention(self.of_query(query), seen, seen, need_weights=False)[0]
        found: Tensor = query + self.mlp(self.of_sum(query))
        return found


@torch.no_grad()
def compressed_constant(compress: nn.Module, targets: Targets, device: torch.device) -> float:
    """The constant baseline of the targets that a compressor makes, as it is now."""
    views = torch.from_numpy(targets.vectors)
    parts = [compress(views[i : i + PIECE].to(device)).float().cpu() for i in range(0, len(views), PIECE)]
    return constant_cosine(torch.cat(parts).numpy())
