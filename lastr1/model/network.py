"""The network of a model folder: built as its `config.json` says, before its weights are filled in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lastr1.model import hub
from lastr1.model.backbone import Backbone, Qwen3VLConfig
from lastr1.model.hub import understood
from lastr1.model.prompt import special_tokens
from lastr1.model.shards import source_of
from lastr1.types import UserError

HEAD, _EMBEDDING = "lm_head.weight", "model.language_model.embed_tokens.weight"


class _Undrawn(TorchFunctionMode):
    """Leaves new weights as they lie in memory: drawing billions that are read at once takes minutes."""

    # By name: transformers puts functions of its own in place of some of torch's.
    DRAWS = frozenset(["normal_", "uniform_", "trunc_normal_", "kaiming_uniform_"])

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.__name__ in self.DRAWS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def read_backbone(
    directory: Path, tokenizer: Tokenizer, stored: dict[str, Tensor], dtype: torch.dtype
) -> Backbone:
    """The network of a folder, its weights not filled in yet."""
    path, tokens = directory / hub.CONFIG, directory / hub.TOKENIZER
    config = hub.read_config(directory)
    _tie(config, stored, source_of(directory))
    try:
        image = special_tokens(tokenizer).image
    except ValueError as error:
        raise UserError(f"{tokens} is damaged or of another model: {error}") from None
    if config.image_token_id != image:
        raise UserError(
            f"{path} gives <|image_pad|> the id {config.image_token_id}, {tokens} {image}: use a pair"
        )
    rows, needed = config.text_config.vocab_size, max(tokenizer.get_vocab().values()) + 1
    if needed > rows:
        raise UserError(
            f"{path}: vocab_size {rows} is too small for the {needed} tokens of {tokens}: use a pair"
        )
    for part in (config, config.text_config, config.vision_config):
        part.dtype = dtype
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with _Undrawn(), understood(path):
            return Backbone(config)
    finally:
        torch.set_default_dtype(usual)


def _tie(config: Qwen3VLConfig, stored: dict[str, Tensor], source: Path) -> None:
    """A head that is not stored is the embedding; one that is stored twice must be."""
    head = stored.get(HEAD)
    if head is None:
        config.tie_word_embeddings = config.text_config.tie_word_embeddings = True
    elif config.tie_word_embeddings:
        if not torch.equal(head, stored.get(_EMBEDDING, head)):
            raise UserError(f"{source}: {HEAD} is not the embedding that {hub.CONFIG} ties it to: untie it")
        del stored[HEAD]


@torch.no_grad()
def draw_rows(net: Backbone, ids: range) -> None:
    """Rows of new tokens: N(mean of the matrix, 0.02^2) (ALGORITHM.md 2.2)."""
    embedding = net.net.model.language_model.embed_tokens.weight
    for matrix in [embedding] if net.head is embedding else [embedding, net.head]:
        mean = matrix[: ids.start].float().mean(0)
        matrix[ids.start : ids.stop] = (mean + 0.02 * torch.randn(len(ids), net.width)).to(matrix.dtype)
