"""Operations that multiply and sum: layers, matrix products, attention, recurrence."""

from __future__ import annotations

from planish.analysis.dependency.dims import Dim, product
from planish.analysis.dependency.trace import Axes, Call, Product, Rule, Value


def _record(call: Call, loops: Axes, batch: Axes = (), weighted: bool = True) -> None:
    call.trace.products.append(Product(call.fx, loops, batch, weighted))


def _bias(call: Call, dim: Dim) -> None:
    if bias := call.axes("bias"):
        call.same(bias[-1], dim)


def _linear(call: Call) -> Value:
    *batch, inner = call.axes("input")
    *outer, weight = call.axes("weight")
    call.same(inner, weight)
    if outer:
        _bias(call, outer[0])
    _record(call, (*batch, *outer, inner))
    return (*batch, *outer)


def _conv(call: Call) -> Value:
    x, weight = call.axes("input"), call.axes("weight")
    space, result = len(weight) - 2, call.fresh()
    channels = x[-space - 1]
    groups = Dim(call["groups"])
    call.same(channels, product((groups, weight[1])))
    if call["groups"] > 1:
        outputs = Dim(weight[0].size // groups.size)
        call.same(weight[0], product((groups, outputs)))
    call.hold((*x[-space:], *result[-space:], *weight[2:]), "slides over it")
    _bias(call, weight[0])
    _record(call, (*x[: -space - 1], *result[-space:], *weight))
    return (*x[: -space - 1], weight[0], *result[-space:])


def _conv_transpose(call: Call) -> Value:
    x, weight = call.axes("input"), call.axes("weight")
    space, result = len(weight) - 2, call.fresh()
    groups = Dim(call["groups"])
    call.same(x[-space - 1], weight[0])
    inputs = Dim(weight[0].size // groups.size)
    call.same(weight[0], product((groups, inputs)))
    channels = product((groups, weight[1]))
    call.hold((*x[-space:], *result[-space:], *weight[2:]), "slides over it")
    _bias(call, channels)
    _record(call, (*x[: -space - 1], *x[-space:], *weight))
    return (*x[: -space - 1], channels, *result[-space:])


def _addmm(call: Call) -> Value:
    result = _multiply(call, "mat1", "mat2")
    _broadcast(call, call.axes("self"), result)
    return result


def _baddbmm(call: Call) -> Value:
    result = _multiply(call, "batch1", "batch2")
    _broadcast(call, call.axes("self"), result)
    return result


def _broadcast(call: Call, small: Axes, large: Axes) -> None:
    for left, right in zip(small[::-1], large[::-1], strict=False):
        if left.size == right.size:
            call.same(left, right)


def _matmul(call: Call) -> Value:
    return _multiply(call, "self", "other" if "other" in call.arguments else "mat2")


def _multiply(call: Call, left: str, right: str) -> Axes:
    a, b = call.axes(left), call.axes(right)
    rows, columns = a[-2:-1], b[-1:] if len(b) > 1 else ()
    inner = b[-min(2, len(b))]
    call.same(a[-1], inner)
    batch = joined(call, [a[:-2], b[:-2]])
    weighted = call.trace.is_stored(call[left]) or call.trace.is_stored(call[right])
    _record(call, (*batch, *rows, *columns, inner), batch, weighted)
    return (*batch, *rows, *columns)


def joined(call: Call, operands: list[Axes]) -> Axes:
    """The axes of what operands broadcast to."""
    result: list[Dim] = []
    for place in range(1, max(map(len, operands), default=0) + 1):
        dims = [axes[-place] for axes in operands if len(axes) >= place]
        wide = [dim for dim in dims if dim.size != 1]
        for other in wide[1:]:
            call.same(wide[0], other)
        result.append(wide[0] if wide else dims[0])
    return tuple(reversed(result))


def _attention(call: Call) -> Value:
    *lead, length, features = call.axes("query")
    *lead_key, keys, features_key = call.axes("key")
    *lead_value, keys_value, values = call.axes("value")
    call.same(features, features_key)
    call.same(keys, keys_value)
    call.hold((keys, length), "attends over it")
    if call["enable_gqa"] and lead and lead[-1].size != lead_key[-1].size:
        shared = Dim(lead[-1].size // lead_key[-1].size)
        call.same(lead_key[-1], lead_value[-1])
        call.same(lead[-1], product((lead_key[-1], shared)))
        batch = (*joined(call, [tuple(each[:-1]) for each in (lead, lead_key, lead_value)]), lead[-1])
    else:
        batch = joined(call, [tuple(lead), tuple(lead_key), tuple(lead_value)])
    _broadcast(call, call.axes("attn_mask"), (*batch, length, keys))
    _record(call, (*batch, length, keys, features), batch, weighted=False)
    _record(call, (*batch, length, keys, values), batch, weighted=False)
    return (*batch, length, values)


def _einsum(call: Call) -> Value:
    terms, arrow, result = call["equation"].replace(" ", "").partition("->")
    operands = [call.trace.axes(node) for node in call["tensors"]]
    if not arrow or "." in terms:
        return call.trace.unknown(call)
    known: dict[str, Dim] = {}
    inputs = terms.split(",")
    for letters, axes in zip(inputs, operands, strict=True):
        for letter, dim in zip(letters, axes, strict=True):
            call.same(known.setdefault(letter, dim), dim)
    if len(operands) > 1:
        batch = tuple(known[letter] for letter in result if all(letter in term for term in inputs))
        _record(call, tuple(known.values()), batch, any(map(call.trace.is_stored, call["tensors"])))
    return tuple(known[letter] for letter in result)


def _recurrent(gates: int) -> Rule:
    """`lstm` and `gru`: all layers and directions share one hidden dimension, since their states are one tensor."""

    def rule(call: Call) -> Value:
        x = call.axes("input")
        states = [call.trace.axes(node) for node in (call["hx"] if gates == 4 else [call["hx"]])]
        weights = [call.trace.axes(node) for node in call["params"]]
        directions = 2 if call["bidirectional"] else 1
        each = len(weights) // (call["num_layers"] * directions)
        hidden, layers = states[0][-1], states[0][0]
        if any(len(axes) > 2 for axes in weights) or each != (4 if call["has_biases"] else 2):
            return call.trace.unknown(call)
        entering = x[-1]
        for layer in range(call["num_layers"]):
            for direction in range(directions):
                first = (layer * directions + direction) * each
                into, back, *biases = weights[first : first + each]
                call.same(into[1], entering)
                call.same(back[1], hidden)
                for axes in (into, back, *biases):
                    kinds = Dim(gates)
                    call.same(axes[0], product((kinds, hidden)))
                    call.hold((kinds,), "has a part for each gate")
                _record(call, (*x[:-1], *into))
                _record(call, (*x[:-1], *back))
            both = Dim(directions)
            call.hold((both,), "runs in two directions")
            entering = product((both, hidden))
        for axes in states:
            call.same(axes[-1], hidden)
        call.hold((*x[:-1], layers), "runs over it")
        return [(*x[:-1], entering), *states]

    return rule


RULES: dict[str, Rule] = {
    "linear": _linear,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _conv),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _conv_transpose),
    "addmm": _addmm,
    "baddbmm": _baddbmm,
    **dict.fromkeys(("matmul", "mm", "bmm"), _matmul),
    "scaled_dot_product_attention": _attention,
    "einsum": _einsum,
    "lstm": _recurrent(4),
    "gru": _recurrent(3),
}
