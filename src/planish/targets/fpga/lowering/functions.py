"""Functions of one number, and the fixed-point formats that their results go to."""

# ruff: noqa: A001  (`format` is the word for it everywhere else)

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx

from planish.formats import E8M0, Float, Format, Int
from planish.graph import Node
from planish.targets.fpga.lowering.context import Context, Refusal
from planish.targets.fpga.lowering.dyadic import power_of_two
from planish.targets.fpga.operations.base import Codes, Integers

_ACTIVATIONS = {"celu", "elu", "gelu", "hardsigmoid", "hardswish", "leaky_relu", "log_sigmoid", "mish", "prelu", "relu"}
_ACTIVATIONS |= {
    "hardshrink",
    "hardtanh",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softplus",
    "softshrink",
    "tanh",
    "threshold",
}
_ARITHMETIC = {"abs", "add", "div", "mul", "neg", "pow", "reciprocal", "rsub", "square", "sub"}
_OTHERS = {
    "clamp",
    "clamp_max",
    "clamp_min",
    "erf",
    "exp",
    "exp2",
    "expm1",
    "log",
    "log1p",
    "log2",
    "maximum",
    "minimum",
}
_OTHERS |= {"rsqrt", "sign", "sqrt"}
_WAVES = {"atan", "cos", "sin", "tan"}
_STEPS = {"ceil", "floor", "round", "trunc"}
FUNCTIONS = frozenset(_ACTIVATIONS | _ARITHMETIC | _OTHERS | _WAVES | _STEPS)
"""Operations of which a number of the output depends on the numbers at its own place only."""
ROUNDINGS = {"even": "even", "halfup": "up", "down": "floor"}


@dataclass(frozen=True)
class Grid:
    """A fixed-point format: which codes there are, and how numbers go to them."""

    codes: Codes
    rounding: str


def run_of(form: Format) -> tuple[int, int | None] | None:
    """The axis along which numbers share exponents that follow from them, and how many do (None: all along it).

    So it is with MX and block floating point of integers (`mxint8~dynamic`, `int4@g16*e8m0~floor~dynamic`); None for
    other formats.
    """
    if not form.is_dynamic or not isinstance(form.element, Int) or form.block is None or form.scale is None:
        return None
    scale, block = form.scale, form.block
    told = Format(form.element, block, scale, rounding=form.rounding, rule="floor", is_dynamic=True)
    powers = scale.element == E8M0 and not scale.levels
    plain = form == told and powers and len(block.sizes) == 1 and block.others == "one"
    return block.sizes[0] if plain and form.rounding in ROUNDINGS else None


def grid_of(context: Context, cast: Node) -> Grid:
    """The fixed-point format of a cast.

    Raises:
        Refusal: It has none.
    """
    format = cast.format
    assert format is not None
    element = format.element
    if not isinstance(element, Int) or format.zero_point or format.residual or format.offset:
        raise Refusal(f"{format} has no integer meaning: a fixed-point format has, such as q3.4")
    if format.is_dynamic:
        raise Refusal(f"the scales of {format} are computed from the numbers, and are no powers of two by `floor`")
    if format.rounding not in ROUNDINGS:
        raise Refusal(f"hardware rounds {', '.join(ROUNDINGS)}, and {format} {format.rounding}")
    frac = element.frac
    if format.scale is not None:
        scales = np.concatenate([context.number(scale).reshape(-1) for scale in cast.args[1]])
        exponent = power_of_two(float(scales.flat[0])) if scales.size == 1 else None
        if exponent is None:
            raise Refusal(f"a scale of {format} is no power of two for the whole tensor")
        frac -= exponent
    return Grid(Codes(element.lowest, element.highest, frac), ROUNDINGS[format.rounding])


def is_function(node: Node) -> bool:
    """Whether each number of the output depends on one place only; casts to floats are such functions too."""
    if node.op == "cast":
        return node.format is not None and isinstance(node.format.element, Float)
    return node.op.removesuffix("_") in FUNCTIONS


def leaves(context: Context, node: Node) -> set[Node]:
    """The steps, no functions themselves, whose numbers a tree of functions reads."""
    if context.is_constant(node):
        return set()
    if not is_function(node) or differs(context, node):
        return {node}
    return set().union(*(leaves(context, source) for source in node.inputs))


def differs(context: Context, node: Node) -> bool:
    """Whether a constant makes the function another one from place to place."""
    return any(context.is_constant(each) and context.number(each).size > 1 for each in node.inputs[node.op == "cast" :])


def leaf_of(context: Context, step: Node) -> Node | None:
    """The one step whose numbers a tree of functions is a function of; None where it is the step itself."""
    found = leaves(context, step)
    leaf = found.pop() if len(found) == 1 else step
    while is_function(leaf) and not differs(context, leaf):
        streams = [each for each in leaf.inputs if not context.is_constant(each)]
        if len(streams) != 1:
            break
        (leaf,) = streams
    return None if leaf == step else leaf


def to_codes(values: torch.Tensor, frac: int) -> Integers:
    """The integers that numbers of a fixed-point format are."""
    return np.ldexp(values.double().numpy(), frac).astype(np.int64)


def evaluate(context: Context, node: Node, known: dict[fx.Node, torch.Tensor]) -> torch.Tensor:
    """A tree of functions of numbers in a row.

    Raises:
        Refusal: A function differs from place to place.
    """
    values: dict[fx.Node, Any] = dict(known)

    def value(step: fx.Node) -> Any:
        if step in values:
            return values[step]
        if step in context.constant:
            real = context.real[step]
            if isinstance(real, torch.Tensor) and real.numel() != 1:
                raise Refusal(f"a function that differs from place to place ({step.name}) has no one table")
            values[step] = real.reshape(()) if isinstance(real, torch.Tensor) else real
            return values[step]
        args, kwargs = fx.map_arg((step.args, dict(step.kwargs)), value)
        with torch.no_grad():
            values[step] = step.target(*args, **kwargs)  # type: ignore[operator]  # a call
        return values[step]

    return value(node.fx)
