"""Small graphs in fixed point, and their programs, for every test of the FPGA target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

import planish
from planish.formats import Format, Int
from planish.graph import Graph
from planish.graph.cast import cast
from planish.targets.fpga.lower import lower
from planish.targets.fpga.program import Integers, Program


def fixed(bits: int, frac: int, signed: bool = True, rounding: str = "even") -> str:
    """The text of a fixed-point format."""
    return str(Format(Int(bits, frac, signed), scale=None, rounding=rounding))  # type: ignore[arg-type]


class Cast(nn.Module):
    """A cast to fixed point."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form

    def forward(self, x: Tensor) -> Tensor:
        """Rounded."""
        return cast(x, self.form, ())


class FixedMLP(nn.Module):
    """Linear layers with weights, biases and activations in fixed point and ReLU between them."""

    def __init__(self, widths: Sequence[int], weight: str, activation: str, last: str) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))
        self.weight, self.activation, self.last = weight, activation, last

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, widths[0])` to `(batch, widths[-1])`."""
        x = cast(x, self.activation, ())
        for place, layer in enumerate(self.layers):
            bias = cast(layer.bias, fixed(16, 4), ())
            x = nn.functional.linear(x, cast(layer.weight, self.weight, ()), bias)
            x = cast(x, self.last, ()) if place == len(self.layers) - 1 else cast(x.relu(), self.activation, ())
        return x


def mlp_graph(widths: Sequence[int] = (13, 11, 7, 5), bits: int = 6, rounding: str = "even", seed: int = 0) -> Graph:
    """A perceptron, in fixed point all along, of sizes that divide by little."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weight, activation = fixed(bits, bits), fixed(bits, bits - 2, True, rounding)
        model = FixedMLP(widths, weight, activation, fixed(bits, bits - 2, True, rounding)).eval()
        return planish.capture(model, (torch.randn(2, widths[0]),), dynamic={"x": {0: "batch"}})


def mlp_program(widths: Sequence[int] = (13, 11, 7, 5), bits: int = 6, rounding: str = "even") -> Program:
    """Its program."""
    return lower(mlp_graph(widths, bits, rounding))


def random_codes(program: Program, count: int, seed: int = 0) -> tuple[Integers, ...]:
    """Codes of each input, all of those that it may hold."""
    rng = np.random.default_rng(seed)
    return tuple(rng.integers(value.codes.low, value.codes.high + 1, (count, *value.shape)) for value in program.inputs)


def assert_equal(graph: Graph, program: Program, inputs: tuple[Tensor, ...]) -> None:
    """The prepared graph in float64 gives what the program gives, bit for bit."""
    wide: Callable[..., object] = graph.to(dtype=torch.float64)
    doubles = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    expected = torch.utils._pytree.tree_leaves(wide(*doubles))
    found = program.decode(*program.run(*program.encode(*(x.numpy() for x in inputs))))
    for place, (a, b) in enumerate(zip(found, expected, strict=True)):
        different = int((a != b.numpy()).sum())
        assert different == 0, f"output {place}: {different} of {a.size} numbers differ"
