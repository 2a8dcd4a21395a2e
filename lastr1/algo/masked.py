"""Means and whitening over the valid entries of padded tensors.

Axes: E episodes, T decisions per episode (padded at the end).
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def full_precision(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """`x` in fp32, or in float64 if it already is: the reference tests run the same code in float64."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def masked_mean(x: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """Mean of `x` where `mask`; 0 if nothing is valid.  Masked entries may hold anything, NaN included."""
    return torch.where(mask, x, 0.0).sum() / mask.sum().clamp(min=1)


def whiten(x: Float[Tensor, "E T"], valid: Bool[Tensor, "E T"]) -> Float[Tensor, "E T"]:
    """`(x - mean) / sqrt(var + 1e-8)` over the valid entries, variance unbiased; 0 at padding.

    Source: ALGORITHM.md 5.2.  The release keeps whitened values at padding; here padding is 0 and influences
    nothing.
    """
    centred = torch.where(valid, x - masked_mean(x, valid), 0.0)
    variance = centred.square().sum() / (valid.sum() - 1).clamp(min=1)
    return centred / torch.sqrt(variance + 1e-8)
