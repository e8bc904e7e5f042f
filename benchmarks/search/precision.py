"""Small networks whose every layer is rounded or pruned in every way, evaluated at all points by sharing prefixes.

The outputs of the first layers are computed once for each choice in these layers, so that the last layer alone is
computed at every point. A table takes some seconds and is not kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.search.tables import Array, Table
from planish.formats import get
from planish.formats.facts import bits_per_value
from planish.models import letters as letter_data
from planish.models.digits import digits, trained
from planish.models.mlp import MLP
from planish.models.weights import read_weights

BITS = (2, 3, 4, 6, 8)
POINT_OF_ACCURACY = 0.01  # what a bit of every weight is worth where one objective weighs two


@dataclass(frozen=True)
class Option:
    """One way to treat a layer.

    Attributes:
        labels: What the layer's decisions say, in order.
        weight: What its weights become.
        size: Stored bits, over all its weights.
        before: What happens to its input.
    """

    labels: tuple[Any, ...]
    weight: Tensor
    size: float
    before: Callable[[Tensor], Tensor] = lambda x: x


@dataclass(frozen=True)
class Layer:
    """A layer, and the ways to treat it.

    Attributes:
        run: `(input, weight)` to its output.
        options: In the order of `itertools.product` over its decisions.
    """

    run: Callable[[Tensor, Tensor], Tensor]
    options: Sequence[Option]


def sweep(layers: Sequence[Layer], x: Tensor, judge: Callable[[Tensor], float]) -> tuple[Array, Array]:
    """What `judge` says of the outputs, and the stored bits, `(points,)` each, the last layer's options fastest."""

    def descend(x: Tensor, depth: int, size: float) -> Iterator[tuple[float, float]]:
        if depth == len(layers):
            yield judge(x), size
            return
        for option in layers[depth].options:
            y = layers[depth].run(option.before(x), option.weight)
            yield from descend(y, depth + 1, size + option.size)

    with torch.no_grad():
        judged, sizes = zip(*descend(x, 0, 0.0), strict=True)
    return np.array(judged), np.array(sizes)


def error(labels: Tensor) -> Callable[[Tensor], float]:
    """The share of wrong answers."""
    return lambda scores: 1 - float((scores.argmax(1) == labels).float().mean())


def linear(layer: nn.Linear, last: bool = False) -> Callable[[Tensor, Tensor], Tensor]:
    """A linear layer with ReLU after it, unless it is the last."""
    return lambda x, w: functional.linear(x, w, layer.bias) if last else functional.linear(x, w, layer.bias).relu()


def rounded(weight: Tensor, bits: int) -> Option:
    """Symmetric integers with one scale."""
    return Option((bits,), get(f"int{bits}").cast(weight), bits * weight.numel())


def perceptron(widths: Sequence[int]) -> MLP:
    """Trained on the digits for 30 epochs."""
    network = trained(lambda: MLP(widths), lambda m, x, y: functional.cross_entropy(m(x), y), (64,))
    assert isinstance(network, MLP)
    return network


def linears(model: MLP, options: Callable[[int, Tensor], Sequence[Option]]) -> list[Layer]:
    """The layers of a perceptron, each with its options (of its number and its weights)."""
    last = len(model.layers) - 1
    return [
        Layer(linear(layer, place == last), options(place, layer.weight.detach()))
        for place, layer in enumerate(model.layers)
        if isinstance(layer, nn.Linear)
    ]


def weights(layers: Sequence[Layer]) -> int:
    """How many there are."""
    return sum(layer.options[0].weight.numel() for layer in layers)


def weighed(name: str, space: Mapping[str, Sequence[Any]], wrong: Array, bits: Array) -> Table:
    """Error and bits a weight; the single objective takes a bit for a point of accuracy."""
    objectives = {"error": wrong, "bits": bits}
    return Table(name, space, objectives, wrong + POINT_OF_ACCURACY * bits, (1.0, 8.01))


def mixed() -> Table:
    """Six layers on digits, each of 2, 3, 4, 6 or 8 bits: 15,625 points."""
    model = perceptron((64, 64, 64, 64, 64, 64, 10))
    layers = linears(model, lambda _, w: [rounded(w, bits) for bits in BITS])
    images, labels = digits("evaluation")
    wrong, sizes = sweep(layers, images, error(labels))
    return weighed("mixed", {f"layer {i}": BITS for i in range(6)}, wrong, sizes / weights(layers))


def printed() -> tuple[MLP, Tensor, Tensor]:
    """A perceptron trained on printed letters, and 500 letters with their labels."""
    model = MLP(letter_data.WIDTHS)
    read_weights("letters", model)
    features, labels = (part[:500] for part in letter_data.letters("validation"))
    return model, features, labels


def letters() -> Table:
    """Three layers on printed letters, weights and inputs of each of 2, 3, 4, 6 or 8 bits: 15,625 points."""
    weight, inputs = [f"int{bits}" for bits in BITS], [[f"{kind}{bits}" for bits in BITS] for kind in ("int", "uint")]
    wrong, bits = read_and_rounded(weight, inputs)
    space = {f"layer {i} {what}": BITS for i in range(3) for what in ("weight", "input")}
    return weighed("mixed-letters", space, wrong, bits)


def read_and_rounded(weight: Sequence[str], inputs: Sequence[Sequence[str]]) -> tuple[Array, Array]:
    """The error, and the mean bits of weights and inputs, for each choice of both formats in three layers.

    Args:
        weight: Formats of the weights.
        inputs: Formats of what enters the first layer, and of what enters the others, which is never negative.
    """
    model, features, labels = printed()

    def options(place: int, tensor: Tensor) -> list[Option]:
        return [
            Option(
                (w, x),
                get(w).cast(tensor),
                (bits_per_value(get(w)) + bits_per_value(get(x))) / 2 * tensor.numel(),
                get(x).cast,
            )
            for w, x in itertools.product(weight, inputs[place > 0])
        ]

    layers = linears(model, options)
    wrong, sizes = sweep(layers, features, error(labels))
    return wrong, sizes / weights(layers)


class Convolutions(nn.Module):
    """Four convolutions and two linear layers for digits `(batch, 1, 8, 8)`."""

    def __init__(self) -> None:
        super().__init__()
        channels = (1, 8, 12, 16, 16)
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, 3, stride=1 + (place % 2), padding=1)
            for place, (i, o) in enumerate(itertools.pairwise(channels))
        )
        self.linears = nn.ModuleList([nn.Linear(64, 32), nn.Linear(32, 10)])

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = conv(x).relu()
        return self.linears[1](self.linears[0](x.flatten(1)).relu())


def conv() -> Table:
    """Four convolutions and two linear layers on digits, each of 2, 3, 4, 6 or 8 bits: 15,625 points."""
    model = trained(Convolutions, lambda m, x, y: functional.cross_entropy(m(x), y), (1, 8, 8))
    assert isinstance(model, Convolutions)

    def convolve(layer: nn.Conv2d, flat: bool) -> Callable[[Tensor, Tensor], Tensor]:
        def run(x: Tensor, w: Tensor) -> Tensor:
            y = functional.conv2d(x, w, layer.bias, layer.stride, layer.padding).relu()
            return y.flatten(1) if flat else y

        return run

    runs = [convolve(layer, place == 3) for place, layer in enumerate(model.convs)]  # type: ignore[arg-type]
    runs += [linear(model.linears[0]), linear(model.linears[1], last=True)]  # type: ignore[arg-type]
    tensors = [layer.weight.detach() for layer in (*model.convs, *model.linears)]  # type: ignore[union-attr]
    layers = [Layer(run, [rounded(weight, bits) for bits in BITS]) for run, weight in zip(runs, tensors, strict=True)]
    images, labels = digits("evaluation", (1, 8, 8))
    wrong, sizes = sweep(layers, images, error(labels))
    return weighed("mixed-conv", {f"layer {i}": BITS for i in range(6)}, wrong, sizes / weights(layers))


FORMATS = ("int2", "int3", "int4", "nf4", "mxfp4", "mxfp6", "fp8", "int8")


def formats() -> Table:
    """Five layers on digits, each of one of eight formats: 32,768 points; -SQNR of the scores, six dB for a bit."""
    model = perceptron((64, 48, 48, 48, 48, 10))
    images, _ = digits("evaluation")
    with torch.no_grad():
        exact = model(images)

    def options(_: int, weight: Tensor) -> list[Option]:
        return [Option((text,), get(text).cast(weight), bits_per_value(get(text)) * weight.numel()) for text in FORMATS]

    def noise(scores: Tensor) -> float:
        return -10 * float(torch.log10(exact.square().sum() / (exact - scores).square().sum()))

    layers = linears(model, options)
    loss, sizes = sweep(layers, images, noise)
    bits = sizes / weights(layers)
    space = {f"layer {i}": FORMATS for i in range(5)}
    return Table("formats", space, {"-SQNR, dB": loss, "bits": bits}, loss + 6 * bits, (10.0, 10.0))


WEIGHT_FORMATS = ("int3", "int4", "nf4", "mxfp4", "mxfp6", "fp8", "int6", "int8")
INPUT_FORMATS = ("int4", "mxfp4", "mxfp6", "fp8")


def read_formats() -> Table:
    """Three layers on printed letters, weights of one of eight formats, inputs of one of four: 32,768 points."""
    wrong, bits = read_and_rounded(WEIGHT_FORMATS, [INPUT_FORMATS] * 2)
    kinds = (("weight", WEIGHT_FORMATS), ("input", INPUT_FORMATS))
    space = {f"layer {i} {what}": values for i in range(3) for what, values in kinds}
    return weighed("formats-letters", space, wrong, bits)


ZEROS = (0.0, 0.5, 0.7, 0.85)


def sparse() -> Table:
    """Four layers on digits, each with a share of zeros and 2, 3, 4 or 8 bits for the others: 65,536 points."""
    model = perceptron((64, 64, 48, 32, 10))

    def pruned(weight: Tensor, zeros: float) -> Tensor:
        kept = weight.abs() > weight.abs().flatten().kthvalue(max(1, round(zeros * weight.numel()))).values
        return weight * kept if zeros else weight

    def options(_: int, weight: Tensor) -> list[Option]:
        return [
            Option((zeros, bits), get(f"int{bits}").cast(pruned(weight, zeros)), bits * (1 - zeros) * weight.numel())
            for zeros, bits in itertools.product(ZEROS, (2, 3, 4, 8))
        ]

    layers = linears(model, options)
    images, labels = digits("evaluation")
    wrong, sizes = sweep(layers, images, error(labels))
    space = {
        f"layer {i} {what}": values for i in range(4) for what, values in (("zeros", ZEROS), ("bits", (2, 3, 4, 8)))
    }
    return weighed("sparse", space, wrong, sizes / weights(layers))
