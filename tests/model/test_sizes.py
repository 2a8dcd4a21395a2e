"""Full sizes, on the meta device: names and shapes are those of the Hugging Face models plus the value head.

The configurations below are written as the published `config.json` files are (transformers 4.57).
"""

import pytest
import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from lastr1.config import BackboneConfig, PolicyConfig
from lastr1.model import weights
from lastr1.model.codec import Codec
from lastr1.model.prompt import tiny_tokenizer
from lastr1.model.sizes import SIZES

EYES = {
    24: {
        "depth": 24,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "deepstack_visual_indexes": [5, 11, 17],
    },
    27: {
        "depth": 27,
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "deepstack_visual_indexes": [8, 16, 24],
    },
}
PUBLISHED = {  # size: D, MLP, layers, query heads, layers of the vision tower, tied
    "2B": (2048, 6144, 28, 16, 24, True),
    "4B": (2560, 9728, 36, 32, 24, True),
    "8B": (4096, 12288, 36, 32, 27, False),
}
HEAD = {
    f"value_head.mlp.{2 * i}.{kind}": shape
    for i, (wide, narrow) in enumerate([(None, 512), (512, 256), (256, 128), (128, 1)])
    for kind, shape in (("weight", (narrow, wide)), ("bias", (narrow,)))
}


def published(size):
    width, mlp, layers, heads, depth, tied = PUBLISHED[size]
    return Qwen3VLConfig(
        text_config={
            "model_type": "qwen3_vl_text",
            "attention_bias": False,
            "head_dim": 128,
            "hidden_act": "silu",
            "hidden_size": width,
            "intermediate_size": mlp,
            "max_position_embeddings": 262144,
            "num_attention_heads": heads,
            "num_hidden_layers": layers,
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-06,
            "rope_scaling": {
                "mrope_interleaved": True,
                "mrope_section": [24, 20, 20],
                "rope_type": "default",
            },
            "rope_theta": 5000000,
            "tie_word_embeddings": tied,
            "vocab_size": 151936,
        },
        vision_config={
            "model_type": "qwen3_vl",
            "hidden_act": "gelu_pytorch_tanh",
            "in_channels": 3,
            "num_heads": 16,
            "num_position_embeddings": 2304,
            "out_hidden_size": width,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            **EYES[depth],
        },
        image_token_id=151655,
        video_token_id=151656,
        vision_start_token_id=151652,
        vision_end_token_id=151653,
        tie_word_embeddings=tied,
    )


@pytest.fixture(scope="module")
def built(robot):
    """`built(size)`: the policy of a size, without memory; each once."""
    made = {}

    def make(size):
        if size not in made:
            codec = Codec(q01=(-1.0,) * 4, q99=(1.0,) * 4, mask=(True, True, True, False))
            with torch.device("meta"):
                made[size] = weights.build(
                    BackboneConfig(size=size), PolicyConfig(), tiny_tokenizer(["go"]), robot(), codec
                ).policy
        return made[size]

    return make


@pytest.mark.parametrize("size", PUBLISHED)
def test_names_and_shapes(built, size):
    with torch.device("meta"):
        stock = Qwen3VLForConditionalGeneration(published(size))
    expected = {name: tuple(tensor.shape) for name, tensor in stock.state_dict().items()}
    if PUBLISHED[size][-1]:
        del expected["lm_head.weight"]
    width = PUBLISHED[size][0]
    expected |= {name: tuple(x or width for x in shape) for name, shape in HEAD.items()}
    assert {name: tuple(t.shape) for name, t in weights.tensors(built(size)).items()} == expected


def test_number_of_parameters(built):
    """2.128e9 in all, 407.0e6 of them in the vision tower: counted from the upstream checkpoint of the 2B by
    https://huggingface.co/OpenExplorer/Qwen3-VL-2B-Instruct.
    """
    net = built("2B").backbone.net
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(2.128e9, abs=0.5e6)
    assert sum(p.numel() for p in net.model.visual.parameters()) == pytest.approx(407.0e6, abs=0.5e5)


@pytest.mark.parametrize("size", PUBLISHED)
def test_what_has_no_shape(built, size):
    """Rotary base, sections and length; which vision layers reach the language model."""
    ours, theirs = built(size).backbone.net.config, published(size)
    for part in ("text_config", "vision_config"):
        a, b = getattr(ours, part).to_dict(), getattr(theirs, part).to_dict()
        keys = a.keys() - {"vocab_size", "model_type", "_attn_implementation"}
        assert {k: a[k] for k in keys} == {k: b[k] for k in keys}
    assert ours.text_config.vocab_size == 151936
    assert ours.tie_word_embeddings == theirs.tie_word_embeddings


def test_every_size_has_a_name():
    hint = BackboneConfig.__annotations__["size"]
    assert set(hint.__args__) == {"custom", *SIZES} == {"custom", *PUBLISHED}
