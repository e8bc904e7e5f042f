"""Small networks with fewer ranks, neurons or layers, evaluated at all points by sharing prefixes; see `precision`."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.search.precision import (
    Layer,
    Option,
    error,
    linear,
    linears,
    perceptron,
    printed,
    rounded,
    sweep,
    weighed,
    weights,
)
from benchmarks.search.tables import Table
from planish.formats import get
from planish.models.digits import digits, trained

RANKS, FACTOR_BITS = (0.1, 0.2, 0.3, 0.45, 0.7, 1.0), (3, 4, 6, 8)
HIDDEN, KEPT = 64, (8, 16, 24, 32, 40, 48, 56, 64)
BLOCKS, BLOCK_WIDTH, BLOCK_BITS = 8, 48, (0, 2, 4, 8)


def ranks() -> Table:
    """Three layers on printed letters, each with a share of its ranks and bits for its factors: 13,824 points."""

    def factored(weight: Tensor, share: float, bits: int) -> Option:
        if share == 1:
            whole = rounded(weight, bits)
            return Option((share, bits), whole.weight, whole.size)
        left, values, right = torch.linalg.svd(weight, full_matrices=False)
        rank, root = max(1, round(share * len(values))), values.sqrt()
        cast = get(f"int{bits}").cast
        product = cast((left * root)[:, :rank]) @ cast((root[:, None] * right)[:rank])
        return Option((share, bits), product, bits * rank * sum(weight.shape))

    model, features, labels = printed()
    both = list(itertools.product(RANKS, FACTOR_BITS))
    layers = linears(model, lambda _, weight: [factored(weight, *chosen) for chosen in both])
    wrong, sizes = sweep(layers, features, error(labels))
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


class Residual(nn.Module):
    """Blocks `x + relu(W x + b)` between two linear layers, for digits `(batch, 64)`."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, BLOCK_WIDTH)
        self.blocks = nn.ModuleList(nn.Linear(BLOCK_WIDTH, BLOCK_WIDTH) for _ in range(BLOCKS))
        self.last = nn.Linear(BLOCK_WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x).relu()
        return self.last(x)


def depth() -> Table:
    """Eight residual blocks on digits, each left out or of 2, 4 or 8 bits: 65,536 points."""
    model = trained(Residual, lambda m, x, y: functional.cross_entropy(m(x), y), (64,))
    assert isinstance(model, Residual)

    def step(block: nn.Linear) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, weight: x + functional.linear(x, weight, block.bias).relu() if weight.numel() else x

    def kept(layer: nn.Linear) -> list[Option]:
        return [Option((), layer.weight.detach(), 0.0)]

    def choices(block: nn.Linear) -> list[Option]:
        without = Option((0,), torch.empty(0), 0.0)
        return [rounded(block.weight.detach(), bits) if bits else without for bits in BLOCK_BITS]

    blocks = [block for block in model.blocks if isinstance(block, nn.Linear)]
    layers = [Layer(partial(functional.linear, bias=model.first.bias), kept(model.first))]
    layers += [Layer(step(block), choices(block)) for block in blocks]
    layers += [Layer(linear(model.last, last=True), kept(model.last))]
    images, labels = digits("evaluation")
    wrong, sizes = sweep(layers, images, error(labels))
    bits = sizes / (BLOCKS * BLOCK_WIDTH**2)
    return weighed("depth", {f"block {i}": BLOCK_BITS for i in range(BLOCKS)}, wrong, bits)
