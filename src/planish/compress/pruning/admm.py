"""Zeros found by alternating directions: first all weights move, then all are pruned, and what was lost counts on.

Minimizing `tr((W - best) gram (W - best)^T)` over sparse `W` is split (Boyd et al., 2011, section 9.1; for language
models Boža, arXiv 2401.02938, and Meng et al., "ALPS", arXiv 2406.07831): `W` minimizes the loss near a sparse `Z`, `Z`
is `W + U` pruned by magnitude, and `U` sums up their difference. The pull of `Z` grows until the zeros settle. Unlike
SparseGPT it takes back a choice that later ones make a poor one. Columns are scaled such that the Gram matrix has a
diagonal of ones: magnitudes then tell what weights are worth.
"""

from __future__ import annotations

import torch
from torch import Tensor

from planish.compress.pruning.sparsity import Sparsity

ROUNDS = 40
PULL, GROWTH = 0.1, 1.1
"""How strongly `Z` pulls at first, the scaled Gram matrix having ones, and by what the pull grows each round."""


def admm(best: Tensor, gram: Tensor, sparsity: Sparsity, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """The pruned weight and what stays of it; arguments and results as for `sparsegpt` (computed in float32)."""
    scale = gram.diag().sqrt()
    values, vectors = torch.linalg.eigh((gram / scale[:, None]).div_(scale).float())
    weight = (best * scale).float()
    aim = ((weight @ vectors) * values) @ vectors.T
    sparse, sums, pull = weight, torch.zeros_like(weight), PULL
    kept = allowed
    for _ in range(ROUNDS):
        moved = (((aim + pull * (sparse - sums)) @ vectors) / (values + pull)) @ vectors.T
        sums += moved
        kept = sparsity.keep(sums.square().masked_fill(~allowed, -torch.inf))
        sparse = sums.masked_fill(~kept, 0)
        sums = (sums - sparse) / GROWTH  # scaled by the pull
        pull *= GROWTH
    return sparse.double() / scale, kept
