"""What one step of training has to do, by layer, before anyone has said on how many devices.

Sizes are in elements of one sample, so that a precision and a batch can be chosen later; `shared` parts are those
that tensor parallelism divides, the others are done, or kept, by each of its devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Recompute = Literal["none", "selective", "ops", "full"]
Divided = Literal["", "columns", "inner", "count"]


@dataclass(frozen=True, slots=True)
class Product:
    """Matrix products of one layer and sample, forward.

    Attributes:
        flops: Of all of them.
        rows: Of one product; those of a weight grow with the batch.
        columns: Of one product.
        inner: The dimension that is summed over.
        divided: What tensor parallelism divides; "" leaves each device to do it all.
        core: Between activations (attention): its number grows with the batch, and selective recomputation repeats it.
    """

    flops: float
    rows: float
    columns: float
    inner: float
    divided: Divided = ""
    core: bool = False


@dataclass(frozen=True, slots=True)
class Layer:
    """One unit of a model: what is gathered, recomputed and given to a stage as a whole.

    Attributes:
        path: Its module path.
        products: Its matrix products.
        traffic: Elements read and written by elementwise work, forward.
        shared_traffic: Likewise, of the part that tensor parallelism divides.
        core_traffic: Likewise, of attention scores, which selective recomputation repeats.
        saved: Elements that autograd keeps.
        shared_saved: Likewise, of the part that tensor parallelism divides.
        core_saved: Likewise, of attention scores.
        output: Elements handed to the next layer.
        reduced: Elements that tensor parallelism reduces forward; 0 where nothing is divided.
        reduced_backward: Likewise, backward.
        meetings: How often tensor parallel devices meet, forward.
        meetings_backward: Likewise, backward.
        parameters: How many.
        shared_parameters: How many more, of those that tensor parallelism divides.
        operations: How many there are to start.
        like: Path of the layer that this one equals; "" is itself.
        recompute: What is computed again instead of kept: attention, half of the products and all else ("ops"), or all.
    """

    path: str
    products: tuple[Product, ...] = ()
    traffic: float = 0
    shared_traffic: float = 0
    core_traffic: float = 0
    saved: float = 0
    shared_saved: float = 0
    core_saved: float = 0
    output: float = 0
    reduced: float = 0
    reduced_backward: float = 0
    meetings: float = 1
    meetings_backward: float = 1
    parameters: float = 0
    shared_parameters: float = 0
    operations: int = 0
    like: str = ""
    recompute: Recompute = "none"

    @property
    def flops(self) -> float:
        """Forward, of one sample."""
        return sum(product.flops for product in self.products)


Stages = Sequence[Sequence[Layer]]
"""Layers of each stage of a pipeline, in order."""


def total_parameters(layers: Sequence[Layer]) -> float:
    """How many parameters the layers have."""
    return sum(layer.parameters + layer.shared_parameters for layer in layers)


def even(layers: Sequence[Layer], count: int) -> list[list[Layer]]:
    """Stages of as equal numbers of layers as can be; the first and the last layer (embedding, head) come on top."""
    first, *blocks, last = layers
    borders = [round(index * len(blocks) / count) for index in range(count + 1)]
    stages = [list(blocks[start:stop]) for start, stop in pairwise(borders)]
    stages[0].insert(0, first)
    stages[-1].append(last)
    return stages
