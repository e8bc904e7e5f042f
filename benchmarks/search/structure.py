"""Small networks with fewer ranks or neurons, evaluated at all points by sharing prefixes; see `precision`."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.search.precision import (
    Option,
    error,
    linears,
    perceptron,
    rounded,
    sweep,
    weighed,
    weights,
)
from benchmarks.search.tables import Table
from planish.formats import get
from planish.models.digits import digits

RANKS, FACTOR_BITS = (0.1, 0.2, 0.3, 0.45, 0.7, 1.0), (3, 4, 6, 8)
HIDDEN, KEPT = 64, (8, 16, 24, 32, 40, 48, 56, 64)


def ranks() -> Table:
    """Three of four layers on digits, each with a share of its ranks and bits for its factors: 13,824 points."""
    model = perceptron((64, 128, 128, 128, 10))
    both = list(itertools.product(RANKS, FACTOR_BITS))

    def factored(weight: Tensor, share: float, bits: int) -> Option:
        if share == 1:
            whole = rounded(weight, bits)
            return Option((share, bits), whole.weight, whole.size)
        left, values, right = torch.linalg.svd(weight, full_matrices=False)
        rank, root = max(1, round(share * len(values))), values.sqrt()
        cast = get(f"int{bits}").cast
        product = cast((left * root)[:, :rank]) @ cast((root[:, None] * right)[:rank])
        return Option((share, bits), product, bits * rank * sum(weight.shape))

    def options(place: int, weight: Tensor) -> list[Option]:
        return [factored(weight, *chosen) for chosen in both] if place < 3 else [rounded(weight, 8)]

    images, labels = digits("evaluation")
    layers = linears(model, options)
    wrong, sizes = sweep(layers, images, error(labels))
    space = {f"layer {i} {what}": values for i in range(3) for what, values in (("rank", RANKS), ("bits", FACTOR_BITS))}
    return weighed("ranks", space, wrong, sizes / weights(layers))


def widths() -> Table:
    """Five hidden layers on digits, each with 8 to 64 of its neurons, those of large weights: 32,768 points."""
    model = perceptron((64, *(HIDDEN,) * 5, 10))
    tensors = [layer.weight.detach() for layer in model.layers if isinstance(layer, nn.Linear)]

    def options(place: int, weight: Tensor) -> list[Option]:
        if not place:
            return [Option((), weight, 0.0)]
        importance = tensors[place - 1].norm(dim=1) * weight.norm(dim=0)
        order = importance.argsort(descending=True)
        masks = [torch.zeros(HIDDEN).index_fill(0, order[:kept], 1.0) for kept in KEPT]
        return [Option((kept,), weight, 0.0, mask.mul) for kept, mask in zip(KEPT, masks, strict=True)]

    images, labels = digits("evaluation")
    wrong, _ = sweep(linears(model, options), images, error(labels))
    macs = np.array(
        [sum(i * o for i, o in itertools.pairwise((64, *kept, 10))) for kept in itertools.product(KEPT, repeat=5)],
        dtype=float,
    )
    loss = wrong + 0.05 * np.log2(macs)  # half the products for 5 points
    objectives = {"error": wrong, "MACs": macs}
    return Table("widths", {f"layer {i}": KEPT for i in range(5)}, objectives, loss, (1.0, float(macs.max()) * 1.01))
