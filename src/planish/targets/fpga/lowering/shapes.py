"""Steps that move numbers and change none: mostly other names for the same stream."""

from __future__ import annotations

import numpy as np

from planish.graph import Node
from planish.targets.fpga.lowering.arithmetic import blank, emit
from planish.targets.fpga.lowering.context import Context, Refusal
from planish.targets.fpga.lowering.held import Held, reshaped_axes
from planish.targets.fpga.operations.base import Codes, Value
from planish.targets.fpga.operations.layout import Concat, Slice
from planish.targets.fpga.operations.pointwise import Constant, Requantize


def same(context: Context, node: Node) -> Held:
    """What does nothing."""
    return context.take(node.inputs[0])


def reshape(context: Context, node: Node) -> Held:
    """The same numbers in the same order under another shape."""
    return reshaped(context, node, context.take(node.inputs[0]), context.shape(node))


def reshaped(context: Context, node: Node, held: Held, model: tuple[int, ...]) -> Held:
    """A value under another shape of the model; one that is flattened as a whole keeps the stream's order."""
    axes = None if held.before is not None else reshaped_axes(held, model)
    if axes is not None:
        return context.rewire(held, model, axes, node) if axes else _single(context, held, model, node)
    wide = [axis for axis, size in enumerate(model) if size > 1]
    if len(wide) == 1:
        before = held.before or held
        flat = context.rewire(Held(held.value, model, ()), model, (wide[0],), node)
        return Held(flat.value, model, (wide[0],), before)
    plain = context.arrange(held, range(len(held.model)), node)
    axes = reshaped_axes(plain, model)
    assert axes is not None, "what lies in the model's order can be reshaped"
    return context.rewire(plain, model, axes, node)


def _single(context: Context, held: Held, model: tuple[int, ...], node: Node) -> Held:
    return context.rewire(held, model, (len(model) - 1,) if model else (), node)


def permute(context: Context, node: Node) -> Held:
    """Axes of the model in another order: the stream stays as it is."""
    held = context.take(node.inputs[0])
    rank = len(held.model)
    match node.op:
        case "permute":
            dims = [axis % rank for axis in context.argument(node, "dims")]
        case "transpose" | "swapaxes":
            a, b = (int(context.plain(axis)) % rank for axis in node.args[1:3])
            dims = list(range(rank))
            dims[a], dims[b] = b, a
        case _:
            dims = list(range(rank))[::-1]
    if held.before is not None:
        held = context.arrange(held, range(rank), node)
    return Held(held.value, context.shape(node), tuple(dims.index(axis) for axis in held.axes))


def expand(context: Context, node: Node) -> Held:
    """Axes of size 1 that are left as they are; those that grow are read again by whoever reads rows."""
    held, model = context.take(node.inputs[0]), context.shape(node)
    if int(np.prod(held.model)) != int(np.prod(model)):
        raise Refusal(f"from {held.model} to {model} numbers are repeated")
    return reshaped(context, node, held, model)


def cut(context: Context, node: Node) -> Held:
    """A part of one axis."""
    held = context.take(node.inputs[0])
    rank = len(held.model)
    match node.op:
        case "select":
            axis, start = context.argument(node, "dim") % rank, context.argument(node, "index")
            start %= held.model[axis]
            part = _part(context, node, held, axis, start, start + 1, 1)
            return _without(context, node, part, axis)
        case "narrow":
            axis, start, length = (context.argument(node, name) for name in ("dim", "start", "length"))
            return _part(context, node, held, axis % rank, start, start + length, 1)
        case _:
            axis = context.argument(node, "dim") % rank
            chosen = range(
                *slice(*(context.argument(node, name) for name in ("start", "end", "step"))).indices(held.model[axis])
            )
            return _part(context, node, held, axis, chosen.start, chosen[-1] + 1, chosen.step)


def _part(context: Context, node: Node, held: Held, axis: int, start: int, stop: int, step: int) -> Held:
    if (start, stop, step) == (0, held.model[axis], 1):
        return held
    if held.before is not None:
        held = context.arrange(held, range(len(held.model)), node)
    place = held.axes.index(axis)
    count = len(range(start, stop, step))
    shape = (*held.value.shape[:place], count, *held.value.shape[place + 1 :])
    value = blank(context, node, shape, held.value.codes.frac, "_part")
    made = emit(context, Slice, (held.value,), value, place, start, stop, step)
    return Held(made, (*held.model[:axis], count, *held.model[axis + 1 :]), held.axes)


def _without(context: Context, node: Node, held: Held, axis: int) -> Held:
    model = (*held.model[:axis], *held.model[axis + 1 :])
    if held.before is not None or axis not in held.axes:
        return Held(held.value, model, tuple(each - (each > axis) for each in held.axes), held.before)
    axes = tuple(each for each in held.axes if each != axis)
    if not axes:
        return context.rewire(held, model, (len(model) - 1,) if model else (), node)
    kept = tuple(each - (each > axis) for each in axes)
    return context.rewire(held, model, kept, node)


def parts(context: Context, node: Node) -> list[Held]:
    """An axis in pieces."""
    held = context.take(node.inputs[0])
    axis = context.argument(node, "dim") % len(held.model)
    found, start = [], 0
    for piece in context.real[node.fx]:
        size = 1 if node.op == "unbind" else piece.shape[axis]
        part = _part(context, node, held, axis, start, start + size, 1)
        found.append(_without(context, node, part, axis) if node.op == "unbind" else part)
        start += size
    return found


def item(context: Context, node: Node) -> Held:
    """One of several."""
    source, place = node.args
    pieces = context.several(source)
    return pieces[int(place)]


def concatenate(context: Context, node: Node) -> Held:
    """Tensors one after the other along an axis, at the finest of their fraction bits."""
    model = context.shape(node)
    axis = context.argument(node, "dim") % len(model)
    sources = list(node.args[0])
    streams = [source for source in sources if not context.is_constant(source)]
    lead = context.take(max(streams, key=lambda source: int(np.prod(context.shape(source)))))
    if lead.before is not None:
        lead = context.arrange(lead, range(len(lead.model)), node)
    axes = lead.axes if axis in lead.axes else (axis, *lead.axes)
    found = [
        _constant(context, node, source, axes)
        if context.is_constant(source)
        else context.arrange(context.take(source), axes, node)
        for source in sources
    ]
    values = _at_one_place(context, node, [held.value for held in found])
    value = blank(context, node, tuple(model[each] for each in axes), values[0].codes.frac)
    return Held(emit(context, Concat, tuple(values), value, axes.index(axis)), model, axes)


def _at_one_place(context: Context, node: Node, values: list[Value]) -> list[Value]:
    frac = max(value.codes.frac for value in values)
    found = []
    for value in values:
        shift = frac - value.codes.frac
        if shift:
            codes = Codes(value.codes.low << shift, value.codes.high << shift, frac)
            finer = context.value(node, value.shape, codes, "_shifted")
            context.emit(Requantize((value.name,), finer, np.asarray(1), -shift))
            value = finer
        found.append(value)
    return found


def _constant(context: Context, node: Node, source: Node, axes: tuple[int, ...]) -> Held:
    real = context.number(source)
    missing = [axis for axis in range(real.ndim) if axis not in axes]
    moved = real.transpose(*missing, *axes).reshape([real.shape[axis] for axis in axes])
    held = context.constant_value(node, moved)
    return Held(held.value, real.shape, axes)


def stack(context: Context, node: Node) -> Held:
    """Tensors along a new axis."""
    model = context.shape(node)
    axis = context.argument(node, "dim") % len(model)
    single = (*model[:axis], 1, *model[axis + 1 :])
    found = [reshaped(context, node, context.take(source), single) for source in node.args[0]]
    axes = found[0].axes if axis in found[0].axes else (axis, *found[0].axes)
    aligned = [context.arrange(held, axes, node).value for held in found]
    values = _at_one_place(context, node, aligned)
    value = blank(context, node, tuple(model[each] for each in axes), values[0].codes.frac)
    return Held(emit(context, Concat, tuple(values), value, axes.index(axis)), model, axes)


def pad(context: Context, node: Node) -> Held:
    """Zeros around, as constants before and after."""
    amounts = context.argument(node, "pad")
    filled = context.argument(node, "value")
    if filled or context.argument(node, "mode") not in (None, "constant"):
        raise Refusal("it pads with other numbers than zero")
    held = context.take(node.inputs[0])
    rank = len(held.model)
    for place in range(len(amounts) // 2):
        held = _padded(context, node, held, rank - 1 - place, amounts[2 * place], amounts[2 * place + 1])
    return held


def _padded(context: Context, node: Node, held: Held, axis: int, before: int, after: int) -> Held:
    if before < 0 or after < 0:
        held = _part(context, node, held, axis, max(-before, 0), held.model[axis] - max(-after, 0), 1)
        before, after = max(before, 0), max(after, 0)
    if before == after == 0:
        return held
    if held.before is not None:
        held = context.arrange(held, range(len(held.model)), node)
    if axis not in held.axes:
        held = context.arrange(held, (axis, *held.axes), node)
    place, values = held.axes.index(axis), [held.value]
    for size, front in ((before, True), (after, False)):
        if size:
            shape = (*held.value.shape[:place], size, *held.value.shape[place + 1 :])
            zeros = context.value(node, shape, Codes(0, 0, held.value.codes.frac), "_zeros")
            context.emit(Constant((), zeros, np.zeros(shape, dtype=np.int64)))
            values = [zeros, *values] if front else [*values, zeros]
    model = (*held.model[:axis], held.model[axis] + before + after, *held.model[axis + 1 :])
    value = blank(context, node, tuple(model[each] for each in held.axes), held.value.codes.frac)
    return Held(emit(context, Concat, tuple(values), value, place), model, held.axes)
