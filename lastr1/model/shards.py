"""Tensors on disk as Hugging Face lays them out: a safetensors file, or several and an index; no pickle."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import Tensor

from lastr1.model.hub import existing, read_json, understood, write_json
from lastr1.model.manifest import digest
from lastr1.types import UserError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD = 2_000_000_000
"""bytes of one file; a larger tensor has a file to itself"""
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def write_tensors(
    directory: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype, *, shard: int = SHARD
) -> None:
    """Write `tensors` as `dtype`, in files of at most `shard` bytes each.

    One file has no index.  No more than one file is held in memory.
    """
    groups = list(_grouped(tensors, dtype.itemsize, shard))
    where: dict[str, str] = {}
    for number, names in enumerate(groups, 1):
        name = SINGLE if len(groups) == 1 else f"model-{number:05}-of-{len(groups):05}.safetensors"
        write_file(directory / name, {key: tensors[key] for key in names}, dtype)
        where.update(dict.fromkeys(names, name))
    if len(groups) > 1:
        size = dtype.itemsize * sum(tensor.numel() for tensor in tensors.values())
        index = {"metadata": {"total_size": size}, "weight_map": where}
        write_json(directory / INDEX, index)


def write_file(path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """Write `tensors` as `dtype` into one file."""
    part = {key: tensor.detach().to("cpu", dtype).contiguous() for key, tensor in tensors.items()}
    # Written by Python, so that a full disk is an OSError like any other.
    path.write_bytes(serialize(part, metadata={"format": "pt"}))


def _grouped(tensors: Mapping[str, Tensor], width: int, limit: int) -> Iterator[list[str]]:
    names: list[str] = []
    size = 0
    for name, tensor in tensors.items():
        more = width * tensor.numel()
        if names and size + more > limit:
            yield names
            names, size = [], 0
        names.append(name)
        size += more
    yield names


def read_tensors(directory: Path) -> dict[str, Tensor]:
    """Every tensor of a model folder, mapped from disk (nothing is in memory before it is used).

    `UserError` names the file that is missing, damaged, a pickle, or not what the index says.
    """
    if (directory / SINGLE).is_file() or not (directory / INDEX).is_file():
        return read_file(_weights(directory))
    where = _index(directory)
    found: dict[str, Tensor] = {}
    for name in sorted(set(where.values())):
        part = read_file(directory / name)
        for key in sorted(part.keys() ^ {key for key, file in where.items() if file == name}):
            raise UserError(
                f"{directory / INDEX} and {name} disagree about tensor {key}: download the folder again"
            )
        found.update(part)
    return found


def source_of(directory: Path) -> Path:
    """The file to name when the tensors do not fit."""
    return directory / (SINGLE if (directory / SINGLE).is_file() else INDEX)


def fingerprint(directory: Path) -> str:
    """SHA-256 of the weight files of a model folder, in the order of their names."""
    found = hashlib.sha256()
    single = (directory / SINGLE).is_file() or not (directory / INDEX).is_file()
    for name in [_weights(directory).name] if single else sorted(set(_index(directory).values())):
        found.update(bytes.fromhex(digest(existing(directory, name))))
    return found.hexdigest()


def check_fit(shapes: Mapping[str, Sequence[int]], stored: Mapping[str, Tensor], source: str) -> None:
    """`UserError` unless every name and shape is as expected, and every tensor holds real numbers."""
    for name in sorted(shapes.keys() ^ stored.keys()):
        raise UserError(f"{source}: tensor {name} is {'missing' if name in shapes else 'unknown'}")
    for name, shape in shapes.items():
        if list(shape) != list(stored[name].shape):
            raise UserError(f"{source}: {name} is {list(stored[name].shape)}, not {list(shape)}")
        if not stored[name].is_floating_point():
            raise UserError(f"{source}: {name} is quantised ({stored[name].dtype}): use an unquantised model")


def stored_dtype(stored: Mapping[str, Tensor]) -> torch.dtype:
    """The type that holds every stored number: bf16 if all are, otherwise fp32."""
    return torch.bfloat16 if {t.dtype for t in stored.values()} == {torch.bfloat16} else torch.float32


def _index(directory: Path) -> dict[str, str]:
    path = directory / INDEX
    with understood(path):
        where = dict(read_json(directory, INDEX)["weight_map"])
        names = {Path(name).name for name in where.values()}
    if not where or names != set(where.values()):
        raise UserError(f"{path} is damaged (weight_map must name files of its own folder); use another")
    return where


def _weights(directory: Path) -> Path:
    if not (directory / SINGLE).is_file():
        for pattern in PICKLES:
            for path in sorted(directory.glob(pattern)):
                raise UserError(f"{path} is a pickle, which can run code: use a folder with {SINGLE}")
    return existing(directory, SINGLE)


def read_file(path: Path) -> dict[str, Tensor]:
    """Every tensor of one file, which has to be there."""
    try:
        return load_file(existing(path.parent, path.name))
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}); use another checkpoint") from None
