"""Qwen3-VL in its public sizes (dense, Instruct), from the published configuration values.

For models with random weights of the real size: memory and speed can be measured without a download.  A model
on disk is never compared with this table; its own `config.json` counts.
"""

from dataclasses import replace

from lastr1.config import BackboneConfig
from lastr1.model.backbone import Qwen3VLConfig, tiny_config

VOCABULARY = 151_936
"""rows of the embedding; the tokenizer fills 151,669 of them, and 259 more with ours (ALGORITHM.md 2.2)"""
IMAGE = 768
"""pixels that the learned position embedding of the vision tower was made for: (768 / 16)^2 = 2304"""

_SMALL_EYE = BackboneConfig(
    kv_heads=8, head_dim=128,
    vision_hidden=1024, vision_layers=24, vision_heads=16, vision_mlp=4096, deepstack=(5, 11, 17), heads=16,
)  # fmt: skip
SIZES = {
    "2B": replace(_SMALL_EYE, hidden=2048, layers=28, heads=16, mlp=6144),
    "4B": replace(_SMALL_EYE, hidden=2560, layers=36, heads=32, mlp=9728),
    "8B": replace(
        _SMALL_EYE, hidden=4096, layers=36, heads=32, mlp=12288,
        vision_hidden=1152, vision_layers=27, vision_mlp=4304, deepstack=(8, 16, 24),
    ),
}  # fmt: skip
"""size -> its knobs"""
_TIED = {"2B", "4B"}


def scratch_config(
    backbone: BackboneConfig, *, vocabulary: int, image: int, special: dict[str, int]
) -> Qwen3VLConfig:
    """The configuration of a model to be built: a public size, or the knobs (`size = "custom"`).

    `vocabulary` and `image` are those of the policy; a public size brings its own.
    """
    if backbone.size == "custom":
        return tiny_config(backbone, vocabulary=vocabulary, image=image, special=special)
    return tiny_config(
        SIZES[backbone.size],
        vocabulary=max(vocabulary, VOCABULARY),
        image=IMAGE,
        special=special,
        theta=5_000_000.0,
        length=262_144,
        tied=backbone.size in _TIED,
    )
