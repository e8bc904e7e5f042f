"""Casts to fixed point: a requantization where products and clamps come before them, otherwise a table; and to runs
that share exponents.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from planish.formats import Int
from planish.graph import Node
from planish.targets.fpga.lowering.context import Context, Refusal
from planish.targets.fpga.lowering.dyadic import power_of_two
from planish.targets.fpga.lowering.functions import (
    ROUNDINGS,
    Grid,
    evaluate,
    grid_of,
    is_function,
    leaf_of,
    run_of,
    to_codes,
)
from planish.targets.fpga.lowering.held import Held
from planish.targets.fpga.lowering.quotients import normalize
from planish.targets.fpga.operations.base import Codes, Value
from planish.targets.fpga.operations.pointwise import Lookup, Requantize
from planish.targets.fpga.operations.rounding import shift_right
from planish.targets.fpga.operations.rows import Microscale

MOST_ENTRIES = 2**16
"""Of a table."""


def cast(context: Context, node: Node) -> Held:
    """A cast to fixed point, with the functions before it."""
    if node.format is not None and (run := run_of(node.format)) is not None:
        return _microscaled(context, node, *run)
    grid, (source, *_) = grid_of(context, node), node.inputs
    if source.kind == "input":
        return door(context, source, grid.codes, grid.rounding)
    if (normalized := normalize(context, node, source, grid)) is not None:
        return normalized
    scaling = _scaling(context, source)
    if (leaf := leaf_of(context, scaling.step)) is not None:
        held = context.take(leaf)
        if held.value.codes.high - held.value.codes.low < MOST_ENTRIES:
            return _table(context, node, leaf, held, grid)
    return _requantized(context, node, scaling, grid)


def _microscaled(context: Context, node: Node, axis: int, size: int | None) -> Held:
    """Numbers that share exponents with their neighbors, on the grid that they come on."""
    form = node.format
    assert form is not None
    assert isinstance(form.element, Int)
    held = context.last(context.take(node.inputs[0]), axis, node)
    came, element = held.value.codes, form.element
    fields = {"group": size or held.value.row, "low": element.lowest, "high": element.highest}
    scaled = Microscale((held.name,), held.value, **fields, rounding=ROUNDINGS[form.rounding])
    if not scaled.most(came):
        return held
    low, high = scaled.bounds(held.value)
    value = context.value(node, held.value.shape, Codes(low, high, came.frac))
    context.emit(replace(scaled, output=value))
    return Held(value, held.model, held.axes)


def door(context: Context, source: Node, codes: Codes, rounding: str) -> Held:
    """An input of the model, in the format of the casts that read it.

    Raises:
        Refusal: Others read it in another format.
    """
    if source.fx in context.held:
        held = context.take(source)
        if held.value.codes != codes or context.roundings[held.name] != rounding:
            raise Refusal(f"the input {source.name} is read in two formats; cast it once and read that")
        return held
    model = context.shape(source)
    axes = tuple(range(len(model)))
    if len(model) > 2 and _meets_windows(source):
        axes = (*axes[2:], 1)
    elif len(model) > 1 and model[0] == 1:
        axes = axes[1:]
    value = Value(context.free(source.name), tuple(model[axis] for axis in axes), codes, source.path)
    context.inputs[source.fx] = value
    context.roundings[value.name] = rounding
    context.held[source.fx] = held = Held(value, model, axes)
    return held


def _meets_windows(node: Node) -> bool:
    """Whether what reads a tensor first, functions of its numbers aside, is a convolution or a pool."""
    return any(
        user.op.startswith(("conv", "max_pool", "avg_pool", "adaptive"))
        or ((is_function(user) or user.op == "cast") and _meets_windows(user))
        for user in node.users
    )


@dataclass(frozen=True)
class _Scaling:
    """What stands between a step and a cast: a product with nonnegative constants, clamped."""

    step: Node
    factor: np.ndarray
    low: float
    high: float


def _scaling(context: Context, source: Node) -> _Scaling:
    factor, low, high, step = np.ones(()), -math.inf, math.inf, source
    while is_function(step) and step.op != "cast":
        match step.op.removesuffix("_"):
            case "relu":
                low = max(low, 0.0)
            case "relu6" | "hardtanh" | "clamp" | "clamp_min" | "clamp_max":
                if factor.size != 1:
                    break
                least, most = _ends(context, step)
                scale = float(factor.reshape(()))
                low, high = max(low, least * scale), min(high, most * scale)
            case "mul" | "div":
                by = _constant_factor(context, step)
                if by is None:
                    break
                factor = factor * by
            case _:
                break
        (step,) = (each for each in step.inputs if not context.is_constant(each))
    return _Scaling(step, factor, low, high)


def _constant_factor(context: Context, step: Node) -> np.ndarray | None:
    """The nonnegative constant, of one number or one for each channel, that a product or quotient multiplies with."""
    places = [place for place, arg in enumerate(step.args[:2]) if context.is_constant(arg)]
    if len(places) != 1 or (step.op.startswith("div") and (places != [1] or "rounding_mode" in step.kwargs)):
        return None
    by = context.number(step.args[places[0]])
    if step.op.startswith("div"):
        if by.size != 1 or power_of_two(float(by.reshape(()))) is None:
            return None
        by = 1.0 / by
    return None if (by < 0).any() or sum(size > 1 for size in by.shape) > 1 else by


def _ends(context: Context, step: Node) -> tuple[float, float]:
    match step.op.removesuffix("_"):
        case "relu6":
            return 0.0, 6.0
        case "hardtanh":
            low, high = context.argument(step, "min_val"), context.argument(step, "max_val")
        case _:
            low, high = context.argument(step, "min"), context.argument(step, "max")
    return (-math.inf if low is None else float(low)), (math.inf if high is None else float(high))


def _requantized(context: Context, node: Node, scaling: _Scaling, grid: Grid) -> Held:
    held, factor = context.take(scaling.step), scaling.factor
    codes, frac = context.codes(factor, "a multiplier")
    wide = [axis + len(held.model) - factor.ndim for axis, size in enumerate(factor.shape) if size > 1]
    if wide:
        held = context.last(held, wide[0], node)
    multiplier = codes.reshape(-1) if wide else np.asarray(codes.reshape(-1)[0])
    came = held.value.codes
    if came.largest.bit_length() + int(codes.max()).bit_length() > 53:
        raise Refusal("the product with its multiplier needs more than the 53 bits in which float64 is exact")
    shift = came.frac + frac - grid.codes.frac
    bounds = _reach(came, int(codes.max()), shift, scaling, grid)
    if shift == 0 and not wide and int(multiplier) == 1 and bounds.holds(came.low, came.high):
        return held
    value = context.value(node, held.value.shape, bounds)
    context.emit(Requantize((held.name,), value, multiplier, shift, grid.rounding))
    return Held(value, held.model, held.axes, held.before)


def _reach(came: Codes, most: int, shift: int, scaling: _Scaling, grid: Grid) -> Codes:
    """The codes of a requantization: what clamps leave, and no wider than what can come."""
    clamps = [min(max(_rounded(end, grid), grid.codes.low), grid.codes.high) for end in (scaling.low, scaling.high)]
    ends = [int(shift_right(np.asarray(end * most), shift, grid.rounding)) for end in (came.low, came.high)]
    low, high = max(clamps[0], min(ends[0], 0)), min(clamps[1], max(ends[1], 0))
    return Codes(low, high, grid.codes.frac) if low <= high else Codes(clamps[0], clamps[1], grid.codes.frac)


def _rounded(x: float, grid: Grid) -> int:
    if math.isinf(x):
        return int(math.copysign(2**62, x))
    scaled = x * 2.0**grid.codes.frac
    match grid.rounding:
        case "even":
            return round(scaled)
        case "up":
            return math.floor(scaled) + (scaled - math.floor(scaled) >= 0.5)
        case _:
            return math.floor(scaled)


def _table(context: Context, node: Node, leaf: Node, held: Held, grid: Grid) -> Held:
    codes = held.value.codes
    numbers = np.arange(codes.low, codes.high + 1) * 2.0**-codes.frac
    table = to_codes(evaluate(context, node, {leaf.fx: torch.from_numpy(numbers)}), grid.codes.frac)
    bounds = Codes(int(table.min()), int(table.max()), grid.codes.frac)
    value = context.value(node, held.value.shape, bounds)
    context.emit(Lookup((held.name,), value, table, codes.low))
    return Held(value, held.model, held.axes, held.before)
