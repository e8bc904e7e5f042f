"""Layers: products with constant weights, pools, embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planish.graph import Node
from planish.targets.fpga.lowering.arithmetic import blank, emit, matmul
from planish.targets.fpga.lowering.casts import door
from planish.targets.fpga.lowering.context import Context, Refusal
from planish.targets.fpga.lowering.dyadic import power_of_two
from planish.targets.fpga.lowering.held import Held
from planish.targets.fpga.operations.base import Codes, Integers, Value
from planish.targets.fpga.operations.layout import Repeat, Spread
from planish.targets.fpga.operations.pointwise import Add, Constant
from planish.targets.fpga.operations.products import Aggregate, Convolve, Embed, Linear
from planish.targets.fpga.operations.rows import Pool

WEIGHT_BITS = 17
"""Of a weight's magnitude: 16-bit codes, and blocks of fewer bits whose scales differ."""


def linear(context: Context, node: Node) -> Held:
    """A linear layer; where its input was flattened in the stream's order, the weight's columns move instead."""
    _check_weight(context, node)
    weight = context.number(node.weight)
    held = context.take(node.args[0])
    if held.before is not None and held.wide_axes == (len(held.model) - 1,):
        weight = weight[:, held.order()]
        held = Held(held.value, held.model, held.axes)
    held = context.last(held, len(held.model) - 1, node)
    return _weighted(context, node, held, weight, _bias(context, node, node.argument("bias")))


def product(context: Context, node: Node) -> Held:
    """`a @ b`, where one may be constant: a layer, or a sparse matrix."""
    left, right = node.args[:2]
    if context.is_constant(right) and context.number(right).ndim == 2:
        held = context.take(left)
        held = context.last(held, len(held.model) - 1, node)
        return _weighted(context, node, held, context.number(right).T, None)
    if context.is_constant(left) and context.number(left).ndim == 2:
        return _aggregated(context, node, context.number(left), right)
    return matmul(context, node)


def _weighted(context: Context, node: Node, held: Held, weight: np.ndarray, bias: np.ndarray | None) -> Held:
    codes, frac = context.codes(weight, "the weight", WEIGHT_BITS)
    frac += held.value.codes.frac
    offset = _at(bias, frac)
    value = blank(context, node, (*held.value.shape[:-1], len(codes)), frac)
    made = emit(context, Linear, (held.value,), value, codes, offset)
    return Held(_finer(context, node, made, bias, offset), context.shape(node), held.axes)


def _aggregated(context: Context, node: Node, matrix: np.ndarray, right: Node) -> Held:
    held = context.take(right)
    rank = len(held.model)
    held = context.arrange(held, (rank - 2, rank - 1), node)
    codes, frac = context.codes(matrix, "the matrix", WEIGHT_BITS)
    value = blank(context, node, (len(codes), held.value.shape[1]), held.value.codes.frac + frac)
    return Held(emit(context, Aggregate, (held.value,), value, codes), context.shape(node), held.axes)


def _check_weight(context: Context, node: Node) -> None:
    if node.weight is None or not context.is_constant(node.weight):
        raise Refusal("its weight is computed from an input")
    bias = node.bias
    if bias is not None and not context.is_constant(bias):
        raise Refusal("its bias is computed from an input")


def _bias(context: Context, node: Node, bias: object) -> np.ndarray | None:
    return None if bias is None else context.number(bias)


def _at(bias: np.ndarray | None, frac: int) -> Integers | None:
    """A bias at the place of the sums it is added to; None where it is finer, or there is none."""
    scaled = None if bias is None else np.ldexp(bias, frac)
    whole = scaled is not None and not (scaled != np.rint(scaled)).any() and np.abs(scaled).max(initial=0) < 2.0**52
    return scaled.astype(np.int64) if scaled is not None and whole else None


def _finer(context: Context, node: Node, made: Value, bias: np.ndarray | None, offset: Integers | None) -> Value:
    """Sums with a bias that is finer than they are, as a step of its own."""
    if bias is None or offset is not None:
        return made
    codes, frac = context.codes(bias, "its bias")
    constant = context.value(node, codes.shape, Codes(int(codes.min()), int(codes.max()), frac), "_bias")
    context.emit(Constant((), constant, codes))
    finest = max(frac, made.codes.frac)
    shifts = (finest - made.codes.frac, finest - frac)
    return emit(context, Add, (made, constant), blank(context, node, made.shape, finest, "_sum"), shifts, (1, 1))


def convolution(context: Context, node: Node) -> Held:
    """A convolution of one to three dimensions."""
    _check_weight(context, node)
    weight = context.number(node.weight)
    space = weight.ndim - 2
    held = _in_space(context, node, node.args[0], space)
    stride, dilation = (_each(context.argument(node, name), space) for name in ("stride", "dilation"))
    padding = _padding(context, node, weight.shape[2:], dilation)
    codes, frac = context.codes(weight, "the weight", WEIGHT_BITS)
    codes = np.moveaxis(codes, 1, -1)
    bias = _bias(context, node, node.bias)
    groups = context.argument(node, "groups")
    return _convolved(context, node, held, codes, bias, frac, stride, padding, dilation, groups)


def _convolved(
    context: Context,
    node: Node,
    held: Held,
    codes: Integers,
    bias: np.ndarray | None,
    frac: int,
    stride: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    dilation: tuple[int, ...],
    groups: int,
) -> Held:
    frac += held.value.codes.frac
    offset, model = _at(bias, frac), context.shape(node)
    value = blank(context, node, (*model[2:], model[1]), frac)
    made = emit(context, Convolve, (held.value,), value, codes, offset, stride, padding, dilation, groups)
    return Held(_finer(context, node, made, bias, offset), model, held.axes)


def transposed(context: Context, node: Node) -> Held:
    """A transposed convolution: zeros spread between the numbers, and the kernel turned around."""
    _check_weight(context, node)
    weight = context.number(node.weight)  # (in, out / groups, *kernel)
    space, groups = weight.ndim - 2, context.argument(node, "groups")
    held = _in_space(context, node, node.args[0], space)
    stride, dilation, padding, extra = (
        _each(context.argument(node, name), space) for name in ("stride", "dilation", "padding", "output_padding")
    )
    spread = held.value
    if max(stride) > 1:
        shape = (*((n - 1) * s + 1 for n, s in zip(spread.shape, stride, strict=False)), spread.shape[-1])
        spread = emit(context, Spread, (spread,), blank(context, node, shape, spread.codes.frac, "_spread"), stride)
    reach = [d * (k - 1) - p for d, k, p in zip(dilation, weight.shape[2:], padding, strict=True)]
    if min(reach) < 0:
        raise Refusal("its padding is wider than its kernel")
    codes, frac = context.codes(weight, "the weight", WEIGHT_BITS)
    turned = np.flip(codes, tuple(range(2, codes.ndim)))
    split = turned.reshape(groups, -1, *turned.shape[1:]).swapaxes(1, 2)  # (groups, out / groups, in / groups, *kernel)
    turned = np.moveaxis(split.reshape(-1, *split.shape[2:]), 1, -1)
    around = tuple((size, size + more) for size, more in zip(reach, extra, strict=True))
    ones = (1,) * space
    held = Held(spread, held.model, held.axes)
    bias = _bias(context, node, node.bias)
    return _convolved(context, node, held, turned, bias, frac, ones, around, dilation, groups)


def _in_space(context: Context, node: Node, source: Node, space: int) -> Held:
    held = context.take(source)
    if len(held.model) != space + 2 or held.model[0] != 1:
        raise Refusal(f"an input of {held.model} is not one sample of channels and {space} axes of space")
    return context.arrange(held, (*range(2, space + 2), 1), node)


def _each(value: int | Sequence[int], space: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * space
    return tuple(value) * (space if len(value) == 1 else 1)


def _padding(
    context: Context, node: Node, kernel: Sequence[int], dilation: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    padding = context.argument(node, "padding")
    if padding == "valid":
        return tuple((0, 0) for _ in kernel)
    if padding == "same":
        wide = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return tuple((size // 2, size - size // 2) for size in wide)
    return tuple((size, size) for size in _each(padding, len(kernel)))


def max_pool(context: Context, node: Node) -> Held:
    """The maximum over windows."""
    return _pooled(context, node, "max", 0)


def average_pool(context: Context, node: Node) -> Held:
    """The mean over windows of as many numbers as are a power of two, or their sum."""
    space = len(context.shape(node)) - 2
    kernel = _each(context.argument(node, "kernel_size"), space)
    divisor = context.argument(node, "divisor_override")
    count = int(np.prod(kernel)) if divisor is None else divisor
    if power_of_two(count) is None:
        raise Refusal(f"a mean of {count} numbers divides by no power of two; the pass Prepare writes it as a product")
    padded = any(_each(context.argument(node, "padding"), space))
    if padded and divisor is None and not context.argument(node, "count_include_pad"):
        raise Refusal("its windows at the border have fewer numbers, and so no one divisor")
    return _pooled(context, node, "sum", count.bit_length() - 1)


def _pooled(context: Context, node: Node, kind: str, places: int) -> Held:
    space = len(context.shape(node)) - 2
    held = _in_space(context, node, node.args[0], space)
    kernel = _each(context.argument(node, "kernel_size"), space)
    stride = _each(context.argument(node, "stride") or kernel, space)
    padding = tuple((size, size) for size in _each(context.argument(node, "padding"), space))
    if kind == "max" and set(_each(context.argument(node, "dilation"), space)) != {1}:
        raise Refusal("its windows are dilated")
    if context.argument(node, "ceil_mode"):
        padding = _ceiled(held.value, context.shape(node)[2:], kernel, stride, padding)
    value = blank(context, node, (*context.shape(node)[2:], held.value.shape[-1]), held.value.codes.frac + places)
    return Held(
        emit(context, Pool, (held.value,), value, kind, kernel, stride, padding), context.shape(node), held.axes
    )


def _ceiled(
    x: Value, out: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: tuple[tuple[int, int], ...]
) -> tuple[tuple[int, int], ...]:
    ends = [(o - 1) * s + k - n - p[0] for o, s, k, n, p in zip(out, stride, kernel, x.shape, padding, strict=False)]
    return tuple((p[0], max(end, p[1])) for p, end in zip(padding, ends, strict=True))


def adaptive_pool(context: Context, node: Node) -> Held:
    """The mean over equal windows."""
    model, space = context.shape(node), len(context.shape(node)) - 2
    held = _in_space(context, node, node.args[0], space)
    if any(size % out for size, out in zip(held.model[2:], model[2:], strict=True)):
        raise Refusal(f"windows from {held.model[2:]} to {model[2:]} are of unequal sizes")
    kernel = tuple(size // out for size, out in zip(held.model[2:], model[2:], strict=True))
    count = int(np.prod(kernel))
    if power_of_two(count) is None:
        raise Refusal(f"a mean of {count} numbers divides by no power of two; the pass Prepare writes it as a product")
    frac = held.value.codes.frac + count.bit_length() - 1
    padding = tuple((0, 0) for _ in kernel)
    value = blank(context, node, (*model[2:], model[1]), frac)
    return Held(emit(context, Pool, (held.value,), value, "sum", kernel, kernel, padding), model, held.axes)


def nearest(context: Context, node: Node) -> Held:
    """Nearest-neighbor upsampling by whole factors."""
    model, space = context.shape(node), len(context.shape(node)) - 2
    held = _in_space(context, node, node.args[0], space)
    if any(out % size for size, out in zip(held.model[2:], model[2:], strict=True)):
        raise Refusal(f"from {held.model[2:]} to {model[2:]} is no whole factor")
    times = tuple(out // size for size, out in zip(held.model[2:], model[2:], strict=True))
    value = blank(context, node, (*model[2:], model[1]), held.value.codes.frac)
    return Held(emit(context, Repeat, (held.value,), value, times), model, held.axes)


def embedding(context: Context, node: Node) -> Held:
    """Rows of a table chosen by whole numbers."""
    table = context.number(node.args[0])
    codes, frac = context.codes(table, "the table", WEIGHT_BITS)
    source = node.args[1]
    held = door(context, source, Codes(0, len(codes) - 1), "even") if source.kind == "input" else context.take(source)
    value = blank(context, node, (*held.value.shape, codes.shape[1]), frac)
    made = emit(context, Embed, (held.value,), value, codes)
    model = context.shape(node)
    return Held(made, model, (*held.axes, len(model) - 1))
