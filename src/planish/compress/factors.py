"""The nearest matrix of low rank, as two factors, in the norm that a layer's inputs give.

For inputs with moments `G = E[x x']`, an error `D` of a weight costs `trace(D G D')` of output. With `G = S S'` that
is the plain norm of `D S`, so the best `D` of low rank is `truncated_svd(D S) S**-1`, whatever the root (QERA, Zhang et
al., arXiv 2410.06040, theorem 1; SVD-LLM, Wang et al., arXiv 2403.07378, section 3.1).
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

DAMPING = 1e-3
"""Added to the diagonal of the moments, as a share of its mean: some channels hardly ever change."""


def root(gram: Tensor) -> Tensor:
    """A lower triangular `S`, `(in, in)`, with `S S'` the damped moments of the inputs."""
    level = DAMPING * gram.diag().mean().clamp_min(1e-12)
    return torch.linalg.cholesky(gram + level * torch.eye(len(gram), dtype=gram.dtype))


@dataclass(frozen=True)
class Spectrum:
    """A matrix `(out, in)` taken apart, so that it can be had in any rank.

    Attributes:
        left: `(out, n)`, orthonormal columns.
        values: `(n,)`, the singular values in the norm asked for, falling: what is left out costs their squares.
        right: `(n, in)`; `left * values @ right` is the matrix.
    """

    left: Tensor
    values: Tensor
    right: Tensor

    @classmethod
    def of(cls, matrix: Tensor, scale: Tensor | None = None) -> Spectrum:
        """Of a matrix float64, in the norm of `matrix @ scale`; `scale` is lower triangular, or the diagonal `(in,)` of
        a diagonal one, or None for the plain norm."""
        left, values, right = torch.linalg.svd(scaled(matrix, scale), full_matrices=False)
        if scale is not None:
            flat = scale.dim() == 1
            right = right / scale if flat else torch.linalg.solve_triangular(scale, right, upper=False, left=False)
        return cls(left, values, right)

    def factors(self, rank: int) -> tuple[Tensor, Tensor]:
        """`(out, rank)` and `(rank, in)`, of like size, whose product is the nearest matrix of that rank."""
        half = self.values[:rank].sqrt()
        return self.left[:, :rank] * half, half[:, None] * self.right[:rank]


def scaled(matrix: Tensor, scale: Tensor | None) -> Tensor:
    """`matrix @ scale`; see `Spectrum.of`."""
    if scale is None:
        return matrix
    return matrix * scale if scale.dim() == 1 else matrix @ scale


def allocate(gains: Mapping[str, Tensor], prices: Mapping[str, float], budget: float) -> dict[str, int]:
    """How many singular values each matrix keeps so that the sum of the gains is the largest that the budget buys.

    Gains fall within each matrix, so taking the best gain for its price again and again is optimal but for the last.

    Args:
        gains: For each matrix what each further rank gains, falling.
        prices: What one rank of it costs.
        budget: What all may cost.
    """
    ranks = dict.fromkeys(gains, 0)
    heap = [(-float(gain[0]) / prices[name], name) for name, gain in gains.items() if len(gain)]
    heapq.heapify(heap)
    while heap:
        _, name = heapq.heappop(heap)
        if prices[name] > budget:
            continue
        budget -= prices[name]
        ranks[name] += 1
        if ranks[name] < len(gains[name]):
            heapq.heappush(heap, (-float(gains[name][ranks[name]]) / prices[name], name))
    return ranks
