"""Quotients by a number of the row, or by its root: what softmax and layer norm end with."""

# ruff: noqa: A002  (`format` is the word for it everywhere else)

from __future__ import annotations

import numpy as np
import torch

from planish.formats import Float, Format
from planish.graph import Node
from planish.targets.fpga.lowering.context import Context, Refusal
from planish.targets.fpga.lowering.functions import Grid, evaluate, is_function
from planish.targets.fpga.lowering.held import Held
from planish.targets.fpga.operations.base import Codes
from planish.targets.fpga.operations.rows import Normalize


def normalize(context: Context, node: Node, source: Node, grid: Grid) -> Held | None:
    """The cast of a product with a function of a row's number, which is cut to a float: None if it is anything else."""
    if source.op != "mul" or len(source.inputs) != 2:
        return None
    for x, r in (source.inputs, source.inputs[::-1]):
        found = None if context.is_constant(r) or context.is_constant(x) else _cut(context, r)
        if found is not None and context.shape(r)[-1] == 1 and context.shape(r) != context.shape(x):
            return _divided(context, node, x, r, *found, grid)
    return None


def _cut(context: Context, r: Node) -> tuple[Node, Format, bool] | None:
    """The cast to a float of few mantissa bits at the bottom of a function, and whether a root comes behind it."""
    root, step = False, r
    while is_function(step):
        sources = [each for each in step.inputs if not context.is_constant(each)]
        if step.op == "cast" and step.format is not None and step.format.rounding == "down":
            return None if step.format.levels else (step, step.format, root)
        if len(sources) != 1:
            return None
        root = root or step.op in ("rsqrt", "sqrt")
        (step,) = sources
    return None


def _divided(context: Context, node: Node, x: Node, r: Node, cut: Node, format: Format, root: bool, grid: Grid) -> Held:
    element = format.element
    assert isinstance(element, Float)
    over, below = context.take(x), context.take(cut.inputs[0])
    axis = len(over.model) - 1
    over = context.last(over, axis, node)
    below = context.arrange(below, over.axes, node)
    index, frac = element.mantissa, below.value.codes.frac
    leading = np.arange(2**index) * 2.0**-index + 1.0
    mantissas = np.concatenate([leading, 2 * leading]) if root else leading
    if element.emin + frac > 0 or element.emax + frac < below.value.codes.bits:
        raise Refusal(f"{format} does not reach all numbers from 2**{-frac} to 2**{below.value.codes.bits - frac}")
    real = _quotients(context, r, cut, np.ldexp(mantissas, -frac), root, below.value.codes.bits)
    table, places = context.codes(real, "an entry of the table")
    came = over.value.codes
    shift = came.frac + places - grid.codes.frac
    nonnegative = came.low >= 0
    bounds = Codes(0 if nonnegative else grid.codes.low, grid.codes.high, grid.codes.frac)
    value = context.value(node, over.value.shape, bounds)
    context.emit(Normalize((over.name, below.name), value, root, index, table, shift, grid.rounding))
    return Held(value, over.model, over.axes)


def _quotients(context: Context, r: Node, cut: Node, numbers: np.ndarray, root: bool, bits: int) -> np.ndarray:
    """A function of numbers with a leading bit at the lowest place.

    Raises:
        Refusal: The function of a number four times as large is not a quarter, or half for a root.
    """

    def value(power: int) -> np.ndarray:
        real = evaluate(context, r, {cut.fx: torch.from_numpy(np.ldexp(numbers, 2 * power))}).double().numpy()
        return np.ldexp(real, power if root else 2 * power)

    found = value(0)
    if any((value(power) != found).any() for power in (1, max(1, bits // 2 - 1))):
        raise Refusal(f"{r.name} is no quotient and no root: its table would depend on the size of the number")
    return found
