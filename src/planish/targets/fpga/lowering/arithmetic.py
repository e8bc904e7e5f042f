"""Exact sums and products of values, and rows reduced."""

from __future__ import annotations

import numpy as np

from planish.graph import Node
from planish.targets.fpga.lowering.context import Context, Refusal
from planish.targets.fpga.lowering.dyadic import power_of_two
from planish.targets.fpga.lowering.held import Held
from planish.targets.fpga.operations.base import Codes, Value
from planish.targets.fpga.operations.layout import Reshape
from planish.targets.fpga.operations.pointwise import Add, Constant, Requantize
from planish.targets.fpga.operations.products import MatMul, Multiply
from planish.targets.fpga.operations.rows import Pool, Reduce


def narrow(operation: type, inputs: tuple[Value, ...], value: Value, *fields: object) -> tuple[object, Value]:
    """An operation whose output has exactly the codes that can come of its inputs."""
    names = tuple(each.name for each in inputs)
    loose = operation(names, value, *fields)
    low, high = loose.bounds(*inputs)
    tight = Value(value.name, value.shape, Codes(low, high, value.codes.frac), value.path)
    return operation(names, tight, *fields), tight


def emit(context: Context, operation: type, inputs: tuple[Value, ...], value: Value, *fields: object) -> Value:
    """Add an operation with the narrowest output, and return that."""
    made, tight = narrow(operation, inputs, value, *fields)
    context.operations.append(made)  # type: ignore[arg-type]
    return tight


def blank(context: Context, node: Node, shape: tuple[int, ...], frac: int, suffix: str = "") -> Value:
    """A value whose codes are still to be found."""
    return context.value(node, shape, Codes(0, 0, frac), suffix)


def add(context: Context, node: Node) -> Held:
    """`a + b`."""
    return _sum(context, node, node.args[:2], (1, 1 if _alpha(context, node) > 0 else -1), abs(_alpha(context, node)))


def subtract(context: Context, node: Node) -> Held:
    """`a - b`."""
    return _sum(context, node, node.args[:2], (1, -1), _alpha(context, node))


def reversed_subtract(context: Context, node: Node) -> Held:
    """`b - a`."""
    return _sum(context, node, node.args[1::-1], (1, -1), _alpha(context, node))


def _alpha(context: Context, node: Node) -> float:
    alpha = node.argument("alpha")
    return 1.0 if alpha is None else float(context.plain(alpha))


def _sum(context: Context, node: Node, terms: tuple[object, ...], signs: tuple[int, ...], alpha: float) -> Held:
    exponent = power_of_two(alpha)
    if exponent is None:
        raise Refusal(f"alpha={alpha} is no power of two")
    a, b = _together(context, node, *terms)
    fracs = [a.value.codes.frac, b.value.codes.frac - exponent]
    frac = max(fracs)
    value = blank(context, node, _joint(a, b), frac)
    shifts = tuple(frac - each for each in fracs)
    made = emit(context, Add, (a.value, b.value), value, shifts, signs)
    model = context.shape(node)
    return Held(made, model, (a if a.value.shape == made.shape else b).axes)


def multiply(context: Context, node: Node) -> Held:
    """`a * b`; by a power of two it is only wires."""
    constants = [arg for arg in node.args[:2] if context.is_constant(arg)]
    streams = [arg for arg in node.args[:2] if not context.is_constant(arg)]
    if constants:
        by = context.number(constants[0])
        if by.size == 1:
            return _scaled(context, node, streams[0], float(by.reshape(())))
    a, b = _together(context, node, *node.args[:2])
    if b.value.size > a.value.size:
        a, b = b, a
    frac = a.value.codes.frac + b.value.codes.frac
    made = emit(context, Multiply, (a.value, b.value), blank(context, node, a.value.shape, frac))
    return Held(made, context.shape(node), a.axes)


def divide(context: Context, node: Node) -> Held:
    """`a / b` by a power of two."""
    by = context.number(node.args[1]) if context.is_constant(node.args[1]) else np.zeros(())
    if by.size != 1 or power_of_two(abs(float(by.reshape(())))) is None:
        raise Refusal("hardware divides exactly by powers of two only")
    return _scaled(context, node, node.args[0], 1.0 / float(by.reshape(())))


def negate(context: Context, node: Node) -> Held:
    """`-a`."""
    return _scaled(context, node, node.args[0], -1.0)


def _scaled(context: Context, node: Node, stream: Node, by: float) -> Held:
    held = context.take(stream)
    codes, frac = context.codes(np.asarray(abs(by)), "a factor")
    factor, value = int(codes), held.value
    if factor != 1:
        value = emit_requantize(context, node, value, factor, frac)
    elif frac:
        value = emit(context, Reshape, (value,), blank(context, node, value.shape, value.codes.frac + frac, "_scaled"))
    if by < 0:
        value = emit(
            context, Add, (value,), blank(context, node, value.shape, value.codes.frac, "_negative"), (0,), (-1,)
        )
    return Held(value, held.model, held.axes, held.before)


def emit_requantize(context: Context, node: Node, value: Value, factor: int, frac: int) -> Value:
    """An exact product with a nonnegative integer times a power of two."""
    codes = Codes(value.codes.low * factor, value.codes.high * factor, value.codes.frac + frac)
    made = context.value(node, value.shape, codes, "_scaled")
    context.emit(Requantize((value.name,), made, np.asarray(factor), 0))
    return made


def relu(context: Context, node: Node) -> Held:
    """`max(a, 0)`."""
    held = context.take(node.inputs[0])
    came = held.value.codes
    if came.low >= 0:
        return held
    value = context.value(node, held.value.shape, Codes(0, max(came.high, 0), came.frac))
    context.emit(Requantize((held.name,), value, np.asarray(1), 0))
    return Held(value, held.model, held.axes, held.before)


def matmul(context: Context, node: Node) -> Held:
    """The product of two streams of matrices."""
    left, right = node.args[:2]
    if context.is_constant(left) and not context.is_constant(right):
        raise Refusal("a constant matrix stands on the left of a product with more than two axes")
    a, b = context.take(left), context.take(right)
    rank = len(a.model)
    if len(b.model) != rank or a.model[:-2] != b.model[:-2]:
        raise Refusal(f"a product of {a.model} and {b.model} would broadcast; both streams have the same leading axes")
    batch = tuple(axis for axis in range(rank - 2) if a.model[axis] > 1)
    a = context.arrange(a, (*batch, rank - 2, rank - 1), node)
    transposed = b.before is None and b.wide_axes[-1:] == (rank - 2,)
    axes = (rank - 1, rank - 2) if transposed else (rank - 2, rank - 1)
    b = context.arrange(b, (*batch, *axes), node)
    shape = (*a.value.shape[:-1], b.model[-1])
    frac = a.value.codes.frac + b.value.codes.frac
    made = emit(context, MatMul, (a.value, b.value), blank(context, node, shape, frac), transposed)
    return Held(made, context.shape(node), a.axes)


def reduce_sum(context: Context, node: Node) -> Held:
    """A sum over the last axis, or over axes of space or tokens."""
    return _reduced(context, node, "sum", 0)


def reduce_max(context: Context, node: Node) -> Held:
    """A maximum over the last axis, or over axes of space or tokens."""
    return _reduced(context, node, "max", 0)


def mean(context: Context, node: Node) -> Held:
    """A mean of as many numbers as are a power of two: a sum with its point moved."""
    held = context.take(node.inputs[0])
    count = int(np.prod([held.model[axis] for axis in _dims(context, node, len(held.model))]))
    if power_of_two(count) is None:
        raise Refusal(f"a mean of {count} numbers divides by no power of two; the pass Prepare writes it as a product")
    return _reduced(context, node, "sum", count.bit_length() - 1)


def _dims(context: Context, node: Node, rank: int) -> list[int]:
    dims = context.plain(node.argument("dim"))
    dims = [dims] if isinstance(dims, int) else dims
    return sorted({axis % rank for axis in dims}) if dims else list(range(rank))


def _reduced(context: Context, node: Node, kind: str, places: int) -> Held:
    held, rank = context.take(node.inputs[0]), len(context.shape(node.inputs[0]))
    dims = _dims(context, node, rank)
    wide = [axis for axis in dims if held.model[axis] > 1]
    kept = tuple(1 if axis in dims else size for axis, size in enumerate(held.model))
    if not wide:
        found = held
    elif wide == [rank - 1] or held.wide_axes[-1:] == (wide[0],) == tuple(wide):
        held = context.last(held, wide[0], node)
        value = blank(context, node, (*held.value.shape[:-1], 1), held.value.codes.frac + places)
        found = Held(emit(context, Reduce, (held.value,), value, kind), kept, held.axes)
    else:
        found = _windowed(context, node, held, wide, kept, kind, places)
    if node.argument("keepdim"):
        return found
    left = [axis for axis in range(rank) if axis not in dims]
    axes = tuple(axis for axis in found.axes if axis in left)
    found = context.arrange(found, axes or (left[-1],) if left else found.axes, node)
    return Held(found.value, context.shape(node), tuple(left.index(axis) for axis in found.axes) if left else ())


def _windowed(
    context: Context, node: Node, held: Held, wide: list[int], kept: tuple[int, ...], kind: str, places: int
) -> Held:
    """All axes but one kept are one window, which is the whole."""
    others = [axis for axis in held.wide_axes if axis not in wide]
    if len(others) > 1:
        raise Refusal(f"a {kind} over axes {wide} of {held.model} is neither of rows nor of a whole space")
    last = others[0] if others else next(axis for axis in range(len(held.model)) if axis not in wide)
    if len(wide) > 3:
        raise Refusal(f"a {kind} over {len(wide)} axes")
    held = context.arrange(held, (*[axis for axis in held.wide_axes if axis in wide], last), node)
    kernel = held.value.shape[:-1]
    value = blank(context, node, (*(1 for _ in kernel), held.value.shape[-1]), held.value.codes.frac + places)
    padding = tuple((0, 0) for _ in kernel)
    return Held(emit(context, Pool, (held.value,), value, kind, kernel, kernel, padding), kept, held.axes)


# Two inputs ----------------------------------------------------------------------------------------------------------


def _together(context: Context, node: Node, a: object, b: object) -> tuple[Held, Held]:
    """Two inputs in one order, one of which may have size 1 on the last axis or be a row."""
    model = context.shape(node)
    streams = [arg for arg in (a, b) if isinstance(arg, Node) and not context.is_constant(arg)]
    largest = max(streams, key=lambda stream: int(np.prod(context.shape(stream))))
    held = context.take(largest)
    if int(np.prod(held.model)) != int(np.prod(model)):
        raise Refusal(f"two smaller tensors make one of shape {model}; expand one of them first")
    offset = len(model) - len(held.model)
    if held.before is not None:
        held = context.arrange(held, range(len(held.model)), node)
    lead = Held(held.value, model, tuple(axis + offset for axis in held.axes))
    first, second = (lead if part is largest else _beside(context, node, part, lead, model) for part in (a, b))
    return first, second


def _beside(context: Context, node: Node, part: object, lead: Held, model: tuple[int, ...]) -> Held:
    if not isinstance(part, Node) or context.is_constant(part):
        return _constant_beside(context, node, context.number(part), lead)
    held = context.take(part)
    offset = len(model) - len(held.model)
    padded = (1,) * offset + held.model
    if held.before is None:
        held = Held(held.value, padded, tuple(axis + offset for axis in held.axes))
    if padded == model:
        return context.arrange(held, lead.axes, node)
    *front, last = lead.axes
    if padded[last] == 1 and all(padded[axis] == model[axis] for axis in front):
        return context.arrange(held, lead.axes, node)
    if padded[last] == model[last] and all(padded[axis] == 1 for axis in front):
        return context.arrange(held, (last,), node)
    if all(size == 1 for size in padded):
        return context.arrange(held, (last,), node)
    raise Refusal(f"{held.model} beside {model} is neither whole, nor one number for each row, nor one row for all")


def _constant_beside(context: Context, node: Node, real: np.ndarray, lead: Held) -> Held:
    real = real.reshape((1,) * (len(lead.model) - real.ndim) + real.shape)
    missing = [axis for axis in range(len(lead.model)) if axis not in lead.axes]
    moved = real.transpose(*missing, *lead.axes).reshape([real.shape[axis] for axis in lead.axes])
    if moved.size == 1:
        moved = moved.reshape(1)
    elif moved.shape[-1:] == (moved.size,) == lead.value.shape[-1:]:
        moved = moved.reshape(-1)
    else:
        moved = np.broadcast_to(moved, lead.value.shape)
    codes, frac = context.codes(moved, "a constant")
    value = context.value(node, moved.shape, Codes(int(codes.min()), int(codes.max()), frac), "_constant")
    context.emit(Constant((), value, codes))
    return Held(value, lead.model, lead.axes)


def _joint(a: Held, b: Held) -> tuple[int, ...]:
    return max((a.value.shape, b.value.shape), key=lambda shape: (len(shape), int(np.prod(shape))))
