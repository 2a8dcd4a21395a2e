"""Observation -> Prompt: the chat template around images and instruction, tokenised once per instruction.

Axes: B decisions, P padded prompt.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from lastr1.model.backbone import Prompt
from lastr1.model.codec import BINS
from lastr1.model.images import MERGE, crop_resize, patchify
from lastr1.spec import RobotSpec
from lastr1.types import Image, Observation

_CHAT = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
_VISION = ("<|image_pad|>", "<|video_pad|>")
_LATENT = ("<latent_start>", "<latent_end>", "<latent_pad>")
CPU = torch.device("cpu")
_ACTIONS = tuple(f"<action_{i}>" for i in range(BINS))


@dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """Ids looked up by name (ALGORITHM.md 2.2)."""

    action: int
    """id of <action_0>; the other 255 follow"""
    latent_start: int
    latent_end: int
    image: int
    pad: int


def token_id(tokenizer: Tokenizer, name: str) -> int:
    """`ValueError` when the tokenizer does not know the token."""
    token: int | None = tokenizer.token_to_id(name)
    if token is None:
        raise ValueError(f"the tokenizer has no token {name}")
    return token


def special_tokens(tokenizer: Tokenizer) -> SpecialTokens:
    """`ValueError` names a token that is missing, or actions that are not contiguous."""
    ids = {name: token_id(tokenizer, name) for name in (*_ACTIONS, *_LATENT, _VISION[0], _CHAT[0])}
    first = ids[_ACTIONS[0]]
    if [ids[name] for name in _ACTIONS] != list(range(first, first + BINS)):
        raise ValueError("the ids of <action_0>..<action_255> are not contiguous and ascending")
    return SpecialTokens(
        action=first,
        latent_start=ids["<latent_start>"],
        latent_end=ids["<latent_end>"],
        image=ids[_VISION[0]],
        pad=ids[_CHAT[0]],
    )


def knows_policy(tokenizer: Tokenizer) -> bool:
    """Whether any of our tokens is in the vocabulary; a downloaded Qwen3-VL has none."""
    return any(tokenizer.token_to_id(name) is not None for name in (*_ACTIONS, *_LATENT))


def add_policy_tokens(tokenizer: Tokenizer) -> range:
    """Append <action_0>..<action_255> and the three latent tokens; their ids (ALGORITHM.md 2.2)."""
    names = (*_ACTIONS, *_LATENT)
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in names])
    first = token_id(tokenizer, names[0])
    return range(first, first + len(names))


def tiny_tokenizer(instructions: Sequence[str]) -> Tokenizer:
    """A word-piece tokenizer over the words of `instructions`; any other word is spelt in characters."""
    words = sorted({w for text in instructions for w in re.findall(r"\w+|[^\w\s]", text.lower())})
    letters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    pieces = ["[UNK]", "user", "assistant", *letters, *(f"##{c}" for c in letters), *words]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=64))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    names = ("\n", *_CHAT, *_VISION, *_ACTIONS, *_LATENT)
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in names])
    return tokenizer


class PromptBuilder:
    """Turns observations into a batch; the tokens of an instruction are computed once."""

    def __init__(self, tokenizer: Tokenizer, spec: RobotSpec, *, image: int, crop: float, patch: int) -> None:
        if image % (patch * MERGE):
            raise ValueError(f"image size {image} must be a multiple of {patch * MERGE} pixels")
        self.tokenizer = tokenizer
        self.tokens = special_tokens(tokenizer)
        self.spec, self.cameras = spec, tuple(camera.name for camera in spec.cameras)
        self.image, self.crop, self.patch = image, crop, patch
        self._ids = lru_cache(maxsize=4096)(self._tokenise)

    def __reduce__(self) -> tuple[Any, ...]:
        """On its way to another process: made anew there, for a cache does not travel."""
        again = partial(PromptBuilder, image=self.image, crop=self.crop, patch=self.patch)
        return again, (self.tokenizer, self.spec)

    def _tokenise(self, instruction: str) -> tuple[int, ...]:
        pads = (self.image // self.patch // MERGE) ** 2
        pictures = f"<|vision_start|>{'<|image_pad|>' * pads}<|vision_end|>" * len(self.cameras)
        before = self._encode(f"<|im_start|>user\n{pictures}")
        # An instruction may come from a stranger: a token of ours spelt out in it is text like any other.
        self.tokenizer.encode_special_tokens = True
        text = self._encode(instruction)
        self.tokenizer.encode_special_tokens = False
        return (*before, *text, *self._encode("<|im_end|>\n<|im_start|>assistant\n"))

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def pixels(self, image: Image, corner: tuple[float, float] = (0.5, 0.5)) -> Image:
        """The crop of a camera image that the policy sees, [image, image, 3]."""
        return crop_resize(image, self.image, self.crop, corner)

    def stack(self, images: Image) -> Image:
        """The centre crops of many images [B, H, W, 3] of one camera."""
        return np.stack([self.pixels(image) for image in images])

    def views(self, observation: Observation) -> Image:
        """The centre crops of all cameras, [cameras, image, image, 3]."""
        return np.stack([self.pixels(observation.images[camera]) for camera in self.cameras])

    def build(self, observations: Sequence[Observation], device: torch.device = CPU) -> Prompt:
        """A left-padded batch with centre-cropped images, on `device`."""
        pixels = np.stack([self.views(o) for o in observations])
        return self.batch([o.instruction for o in observations], pixels, device)

    def batch(self, instructions: Sequence[str], pixels: Image, device: torch.device = CPU) -> Prompt:
        """The same from crops [B, cameras, image, image, 3], or in that order [B * cameras, image, image, 3].

        Pixels travel as bytes, an eighth of the patches that the device makes of them.
        """
        rows = [self._ids(instruction) for instruction in instructions]
        length = max(map(len, rows))
        ids = torch.full((len(rows), length), self.tokens.pad)
        mask = torch.zeros(len(rows), length, dtype=torch.bool)
        for i, row in enumerate(rows):
            ids[i, length - len(row) :] = torch.tensor(row)
            mask[i, length - len(row) :] = True
        side = self.image // self.patch
        pictures = pixels.reshape(-1, *pixels.shape[-3:])
        seen = torch.from_numpy(np.ascontiguousarray(pictures)).to(device)
        return Prompt(
            token_ids=ids.to(device),
            mask=mask.to(device),
            patches=patchify(seen, self.patch).flatten(0, 1),
            grid=((side, side),) * len(self.cameras),
        )
