"""Nonlinear operations written with integers in mind: sums, products, maxima, and tables behind casts.

Softmax and the norms divide a row by a number of the row. The number is cut to its leading bits (a cast to a float of
few mantissa bits, rounded down), so that what is multiplied with is a table of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from planish.formats import Float, Format
from planish.graph import Node
from planish.targets.fpga.lowering.dyadic import power_of_two
from planish.targets.fpga.preparing.context import Preparation
from planish.targets.fpga.preparing.weights import affine

Form = Callable[[Preparation, Node], Node | None]


def softmax(preparation: Preparation, node: Node) -> Node | None:
    """`exp(x - max) / sum(exp(x - max))`."""
    x, dim = node.args[0], int(node.argument("dim"))
    rank = x.value.dim()
    last = dim % rank == rank - 1
    source = x if last else preparation.call("transpose.int", x, dim, -1, before=node, state=preparation.state(x))
    y = softmax_of(preparation, node, source)
    return y if last else preparation.call("transpose.int", y, dim, -1, before=node, state="fixed")


def softmax_of(preparation: Preparation, node: Node, x: Node) -> Node:
    """Softmax of rows."""
    call, bits = preparation.call, preparation.options.bits
    fixed = preparation.cast_if_needed(x, preparation.options.table, node)
    top = call("amax", fixed, [-1], True, before=node)
    below = call("sub.Tensor", fixed, top, before=node)
    power = preparation.blank(call("exp", below, before=node, state="real"), bits, node)
    total = call("sum.dim_IntList", power, [-1], True, before=node)
    share = _over(preparation, total, node, "reciprocal", 1.0)
    return preparation.blank(call("mul.Tensor", power, share, before=node), bits, node)


def _over(preparation: Preparation, total: Node, node: Node, op: str, factor: float) -> Node:
    """A number's reciprocal, or that of its root, times a factor, from its leading bits."""
    options = preparation.options
    cut = preparation.cast_to(total, Format(Float(8, options.index), scale=None, rounding="down"), node)
    over = preparation.call(op, cut, before=node, state="real")
    if factor != 1.0:
        over = preparation.call("mul.Tensor", over, factor, before=node, state="real")
    return preparation.cast_to(over, Format(Float(8, options.index + 2), scale=None), node)


def layer_norm(preparation: Preparation, node: Node) -> Node | None:
    """`(x - mean) / sqrt(variance + eps)`, of `n * x - sum(x)`, so that no mean is rounded."""
    shape = node.argument("normalized_shape")
    if len(shape) != 1:
        preparation.refuse(node, f"it normalizes over {len(shape)} axes at once; hardware normalizes rows")
        return None
    y = _centered(preparation, node, node.args[0], float(node.argument("eps")))
    return _affine(preparation, node, y, node.argument("weight"), node.argument("bias"))


def _centered(preparation: Preparation, node: Node, x: Node, eps: float) -> Node:
    call, count = preparation.call, int(x.value.shape[-1])
    fixed = preparation.cast_if_needed(x, preparation.options.table, node)
    total = call("sum.dim_IntList", fixed, [-1], True, before=node)
    difference = call("sub.Tensor", call("mul.Tensor", fixed, count, before=node), total, before=node)
    squares = call("mul.Tensor", difference, difference, before=node)
    power = call("sum.dim_IntList", squares, [-1], True, before=node)
    return _normed(preparation, node, difference, power, count**3 * eps, math.sqrt(count))


def rms_norm(preparation: Preparation, node: Node) -> Node | None:
    """`x / sqrt(mean(x * x) + eps)`."""
    shape = node.argument("normalized_shape")
    if len(shape) != 1:
        preparation.refuse(node, f"it normalizes over {len(shape)} axes at once; hardware normalizes rows")
        return None
    call, count, eps = preparation.call, int(shape[0]), node.argument("eps")
    x = preparation.cast_if_needed(node.args[0], preparation.options.table, node)
    squares = call("mul.Tensor", x, x, before=node)
    power = call("sum.dim_IntList", squares, [-1], True, before=node)
    least = torch.finfo(torch.float32).eps if eps is None else float(eps)
    y = _normed(preparation, node, x, power, count * least, math.sqrt(count))
    return _affine(preparation, node, y, node.argument("weight"), None)


def _normed(preparation: Preparation, node: Node, x: Node, power: Node, eps: float, factor: float) -> Node:
    above = preparation.call("add.Tensor", power, eps, before=node)
    preparation.small[above.name] = power.name
    over = _over(preparation, above, node, "rsqrt", factor)
    return preparation.blank(preparation.call("mul.Tensor", x, over, before=node), preparation.options.table, node)


def _affine(preparation: Preparation, node: Node, y: Node, gain: Node | None, shift: Node | None) -> Node:
    if gain is not None:
        y = preparation.call("mul.Tensor", y, gain, before=node)
        preparation.fix_constant(y, gain, preparation.options.bits)
    if shift is not None:
        y = preparation.call("add.Tensor", y, shift, before=node)
        preparation.fix_constant(y, shift, preparation.options.wide)
    return y


def group_norm(preparation: Preparation, node: Node) -> Node | None:
    """Groups of channels as rows, normalized as layers are, then a gain and a shift for each channel."""
    call, x, groups = preparation.call, node.args[0], int(node.argument("num_groups"))
    shape = list(x.value.shape)
    fixed = preparation.cast_if_needed(x, preparation.options.table, node)
    rows = call("reshape", fixed, [-1, groups, math.prod(shape[1:]) // groups], before=node, state="fixed")
    y = _centered(preparation, node, rows, float(node.argument("eps")))
    y = call("reshape", y, [-1, *shape[1:]], before=node, state="fixed")
    wide = [-1, *[1] * (len(shape) - 2)]
    for name, op, bits in (
        ("weight", "mul.Tensor", preparation.options.bits),
        ("bias", "add.Tensor", preparation.options.wide),
    ):
        tensor = node.argument(name)
        if tensor is not None:
            column = call("reshape", tensor, wide, before=node, state="constant")
            y = call(op, y, column, before=node)
            preparation.fix_constant(y, column, bits)
    return y


def batch_norm(preparation: Preparation, node: Node) -> Node | None:
    """A product and a sum for each channel."""
    x = preparation.cast_if_needed(node.args[0], preparation.options.wide, node)
    gain, shift = (part.reshape(-1, *[1] * (x.value.dim() - 2)) for part in affine(preparation, node))
    y = preparation.call("mul.Tensor", x, preparation.constant(gain, node, "gain"), before=node)
    return preparation.call("add.Tensor", y, preparation.constant(shift, node, "shift"), before=node)


def attention(preparation: Preparation, node: Node) -> Node | None:
    """`softmax(q @ k.T * scale) @ v`."""
    query, key, value = node.args[:3]
    if node.argument("attn_mask") is not None or node.argument("is_causal"):
        preparation.refuse(node, "its mask has no integer form yet")
        return None
    if node.argument("dropout_p"):
        preparation.refuse(node, "it drops at random")
        return None
    if node.argument("enable_gqa"):
        preparation.refuse(node, "its queries share keys")
        return None
    call, bits = preparation.call, preparation.options.bits
    q, k, v = (preparation.cast_if_needed(each, bits, node) for each in (query, key, value))
    scale = node.argument("scale")
    by = 1.0 / math.sqrt(query.value.shape[-1]) if scale is None else float(scale)
    turned = call("transpose.int", k, -2, -1, before=node, state="fixed")
    scores = call("matmul", q, turned, before=node)
    scaled = times(preparation, scores, by, node)
    return call("matmul", softmax_of(preparation, node, scaled), v, before=node)


def times(preparation: Preparation, x: Node, by: float, node: Node) -> Node:
    """A product with a number, which is rounded to what a multiplier holds."""
    factor: object = by if power_of_two(abs(by)) is not None else preparation.number(by, node, "factor")
    return preparation.call("mul.Tensor", x, factor, before=node)


def mean(preparation: Preparation, node: Node) -> Node | None:
    """A sum times a constant."""
    dims = node.argument("dim")
    rank = node.args[0].value.dim()
    axes = list(range(rank)) if not dims else [dims] if isinstance(dims, int) else list(dims)
    x = preparation.cast_if_needed(node.args[0], preparation.options.bits, node)
    sizes = [x.value.shape[axis] for axis in axes]
    if not all(isinstance(size, int) for size in sizes):
        preparation.refuse(node, "it averages over the batch, or another size that varies")
        return None
    total = preparation.call("sum.dim_IntList", x, axes, bool(node.argument("keepdim")), before=node)
    return times(preparation, total, 1.0 / math.prod(sizes), node)


def average_pool(preparation: Preparation, node: Node) -> Node | None:
    """Sums of windows times a constant."""
    space = node.value.dim() - 2
    given = node.argument("kernel_size")
    kernel = [given] * space if isinstance(given, int) else [*given] * (space if len(given) == 1 else 1)
    padding = node.argument("padding")
    padded = padding if isinstance(padding, int) else max(padding)
    divisor = node.argument("divisor_override") or math.prod(kernel)
    if padded and not node.argument("count_include_pad") and node.argument("divisor_override") is None:
        preparation.refuse(node, "its windows at the border have fewer numbers, and so no one divisor")
        return None
    return _windows(preparation, node, kernel, node.argument("stride") or kernel, padding, divisor, space)


def _windows(
    preparation: Preparation,
    node: Node,
    kernel: Sequence[int],
    stride: object,
    padding: object,
    divisor: int,
    space: int,
) -> Node | None:
    x = preparation.cast_if_needed(node.args[0], preparation.options.bits, node)
    if space == 1:  # ATen's own has no divisor to override
        if power_of_two(divisor) is None:
            preparation.refuse(node, f"it divides by {divisor}, and in one dimension hardware by powers of two only")
            return None
        return preparation.call("avg_pool1d", x, kernel, stride, padding, before=node)
    args = (x, kernel, stride, padding, bool(node.argument("ceil_mode")), True, 1)
    return times(preparation, preparation.call(f"avg_pool{space}d", *args, before=node), 1.0 / divisor, node)


def adaptive_pool(preparation: Preparation, node: Node) -> Node | None:
    """Sums of equal windows times a constant."""
    before, after = node.args[0].value.shape[2:], node.value.shape[2:]
    if all(size == 1 for size in after):
        x = preparation.cast_if_needed(node.args[0], preparation.options.bits, node)
        axes = list(range(2, 2 + len(before)))
        total = preparation.call("sum.dim_IntList", x, axes, True, before=node)
        return times(preparation, total, 1.0 / math.prod(before), node)
    if any(size % out for size, out in zip(before, after, strict=True)):
        preparation.refuse(node, f"windows from {tuple(before)} to {tuple(after)} are of unequal sizes")
        return None
    kernel = [size // out for size, out in zip(before, after, strict=True)]
    return _windows(preparation, node, kernel, kernel, 0, math.prod(kernel), len(kernel))


FORMS: dict[str, Form] = {
    **dict.fromkeys(["softmax", "_softmax"], softmax),
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "group_norm": group_norm,
    "batch_norm": batch_norm,
    "scaled_dot_product_attention": attention,
    "mean": mean,
    **dict.fromkeys(["avg_pool1d", "avg_pool2d", "avg_pool3d"], average_pool),
    **dict.fromkeys(["adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"], adaptive_pool),
}
"""The integer form of each."""
