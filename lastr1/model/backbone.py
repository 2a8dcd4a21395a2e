"""Stock Qwen3-VL, driven directly: the only file that knows transformers (>= 4.57, < 6).

Axes: B decisions, P padded prompt, Q new tokens, S sequence, D width, V vocabulary, R patches of all images,
F numbers of a patch.  Quirks kept here: always an explicit 4-D mask and explicit 3-axis positions; all images
of a batch have one size and go through the vision tower as the frames of one clip (each frame attends to
itself only, as separate images do).
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import Cache, DynamicCache, Qwen3VLConfig, Qwen3VLForConditionalGeneration, StaticCache
from transformers.models.qwen3_vl.modeling_qwen3_vl import apply_rotary_pos_emb_vision

from lastr1.config import BackboneConfig
from lastr1.model.layout import prompt_positions

__all__ = [
    "Backbone",
    "DynamicCache",
    "Embedded",
    "Prompt",
    "Qwen3VLConfig",
    "fixed_cache",
    "fork_cache",
    "new_cache",
    "stored_config",
    "tiny_config",
]

MERGE = 2


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What the policy is asked, tokenised and left-padded."""

    token_ids: Int[Tensor, "B P"]
    mask: Bool[Tensor, "B P"]
    """False at padding"""
    patches: Float[Tensor, "R F"]
    """all patches of all images, R = B * cameras * M"""
    grid: tuple[tuple[int, int], ...]
    """(rows, columns) of patches of each camera, the same for every decision"""


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """A prompt ready for the language model."""

    embeds: Float[Tensor, "B P D"]
    mask: Bool[Tensor, "B P"]
    positions: Int[Tensor, "3 B P"]
    free: Int[Tensor, "B"]
    """first position after the prompt"""
    is_image: Bool[Tensor, "B P"]
    deepstack: list[Float[Tensor, "R D"]]
    """vision features added to the first language layers at the image tokens"""


def tiny_config(
    config: BackboneConfig,
    *,
    vocabulary: int,
    image: int,
    special: dict[str, int],
    theta: float = 10_000.0,
    length: int = 4096,
    tied: bool = True,
) -> Qwen3VLConfig:
    """The Qwen3-VL configuration of a model built from scratch; by default tied, M-RoPE as the original."""
    third = config.head_dim * 5 // 32  # of 64 pairs of a full-size head: 24 time, 20 rows, 20 columns
    text: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": config.hidden,
        "intermediate_size": config.mlp,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": length,
        "rope_theta": theta,
        "rope_scaling": {
            "rope_type": "default",
            "mrope_section": [config.head_dim // 2 - 2 * third, third, third],
            "mrope_interleaved": True,
        },
        "tie_word_embeddings": tied,
    }
    vision: dict[str, Any] = {
        "depth": config.vision_layers,
        "hidden_size": config.vision_hidden,
        "intermediate_size": config.vision_mlp,
        "num_heads": config.vision_heads,
        "out_hidden_size": config.hidden,
        "patch_size": config.patch,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": 2,
        "num_position_embeddings": (image // config.patch) ** 2,
        "deepstack_visual_indexes": list(config.deepstack),
    }
    return Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        tie_word_embeddings=tied,
        image_token_id=special["<|image_pad|>"],
        video_token_id=special["<|video_pad|>"],
        vision_start_token_id=special["<|vision_start|>"],
        vision_end_token_id=special["<|vision_end|>"],
    )


class _FrameAttention(nn.Module):
    """The vision tower's attention with all frames as one batch: the stock one loops over them in Python."""

    def __init__(self, stock: Any) -> None:
        super().__init__()
        self.qkv: nn.Module = stock.qkv
        self.proj: nn.Module = stock.proj
        self.heads: int = stock.num_heads

    def forward(
        self,
        hidden: Float[Tensor, "R D"],
        cu_seqlens: Int[Tensor, "frames+1"],
        position_embeddings: tuple[Tensor, Tensor],
        **_: Any,
    ) -> Float[Tensor, "R D"]:
        """Every frame attends to itself; frames have one size."""
        query, key, value = self.qkv(hidden).unflatten(-1, (3, self.heads, -1)).unbind(1)
        query, key = apply_rotary_pos_emb_vision(query, key, *position_embeddings)
        frames = [x.unflatten(0, (len(cu_seqlens) - 1, -1)).transpose(1, 2) for x in (query, key, value)]
        mixed = nn.functional.scaled_dot_product_attention(*frames)
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2).flatten(0, 1))
        return out


class Backbone(nn.Module):
    """Prompt in, post-norm hidden states out."""

    def __init__(self, config: Qwen3VLConfig) -> None:
        super().__init__()
        config._attn_implementation = "sdpa"  # flash attention cannot take the mask of the action slots
        self.net = Qwen3VLForConditionalGeneration(config)
        for block in self.net.model.visual.blocks:
            block.attn = _FrameAttention(block.attn)
        self.width: int = config.text_config.hidden_size
        self.image_token: int = config.image_token_id
        self.patch: int = config.vision_config.patch_size

    def freeze_vision(self) -> None:
        """Leave the vision tower out of the gradient."""
        self.net.model.visual.requires_grad_(False)

    @contextlib.contextmanager
    def recomputing(self, on: bool) -> Iterator[None]:
        """Passes begun inside keep nothing within a layer: the backward pass computes it again.  No cache.

        By the flags that the stock layers read: the method that sets them has changed its name.
        """
        layers = [*self.net.model.visual.blocks, *self.net.model.language_model.layers] if on else []
        before = [layer.training for layer in layers]
        for layer in layers:
            layer.gradient_checkpointing = layer.training = True
            layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
        try:
            yield
        finally:
            for layer, training in zip(layers, before, strict=True):
                layer.gradient_checkpointing, layer.training = False, training

    @property
    def head(self) -> Float[Tensor, "V D"]:
        """Rows of the output matrix (the embedding when tied)."""
        weight: Tensor = self.net.lm_head.weight
        return weight

    def embed(self, token_ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch D"]:
        """Ordinary input embeddings."""
        embeds: Tensor = self.net.model.language_model.embed_tokens(token_ids)
        return embeds

    def look(self, prompt: Prompt) -> Embedded:
        """Embed the text, encode the images once, place them and give every token its position."""
        is_image = prompt.token_ids == self.image_token
        embeds = self.embed(prompt.token_ids)
        deepstack: list[Tensor] = []
        if prompt.grid:
            assert len(set(prompt.grid)) == 1, f"cameras of different sizes: {prompt.grid}"
            rows, columns = prompt.grid[0]
            images = prompt.token_ids.shape[0] * len(prompt.grid)
            clip = torch.tensor([[images, rows, columns]], device=embeds.device)
            seen = self.net.model.visual(prompt.patches.to(embeds.dtype), grid_thw=clip)
            features, deepstack = self._features(seen)
            embeds = embeds.masked_scatter(is_image[..., None], features.to(embeds.dtype))
        merged = tuple((rows // MERGE, columns // MERGE) for rows, columns in prompt.grid)
        positions, free = prompt_positions(is_image, prompt.mask, merged)
        return Embedded(
            embeds=embeds,
            mask=prompt.mask,
            positions=positions,
            free=free,
            is_image=is_image,
            deepstack=deepstack,
        )

    @staticmethod
    def _features(seen: Any) -> tuple[Tensor, list[Tensor]]:
        if isinstance(seen, tuple):  # transformers 4.57
            return seen[0], seen[1]
        return seen.pooler_output, seen.deepstack_features

    def forward(
        self,
        embeds: Float[Tensor, "B Q D"],
        positions: Int[Tensor, "3 B Q"],
        mask: Bool[Tensor, "B 1 Q S"],
        *,
        cache: Cache | None = None,
        seen: Embedded | None = None,
    ) -> Float[Tensor, "B Q D"]:
        """Hidden states after the final norm.

        `cache` is extended; `seen`, whose prompt the embeddings begin with, adds its vision features.
        """
        visual: dict[str, Any] = {}
        if seen is not None and seen.deepstack:
            is_image = torch.zeros(embeds.shape[:2], dtype=torch.bool, device=embeds.device)
            is_image[:, : seen.is_image.shape[1]] = seen.is_image
            visual = {"visual_pos_masks": is_image, "deepstack_visual_embeds": seen.deepstack}
        out = self.net.model.language_model(
            inputs_embeds=embeds,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=cache is not None,
            **visual,
        )
        hidden: Tensor = out.last_hidden_state
        return hidden


def stored_config(directory: Path) -> Qwen3VLConfig:
    """The `config.json` of a model directory."""
    config: Qwen3VLConfig = Qwen3VLConfig.from_pretrained(directory)
    return config


def new_cache() -> DynamicCache:
    """An empty key/value cache."""
    return DynamicCache()


def fixed_cache(backbone: Backbone, length: int) -> StaticCache:
    """An empty key/value cache with room for `length` slots, all of which every query must mask or see."""
    return StaticCache(config=backbone.net.config.text_config, max_cache_len=length)


def fork_cache(cache: DynamicCache) -> DynamicCache:
    """The same contents in a cache of its own; gradients flow into the original."""
    fork = DynamicCache()
    for index, layer in enumerate(cache.layers):
        fork.update(layer.keys, layer.values, index)
    return fork
