"""Attention: two products round a softmax, which both engines fuse."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from onnx import numpy_helper
from torch import fx

from planish.graph.ops import base_name
from planish.targets.cpu.builder import Builder
from planish.targets.cpu.rules.arguments import Call, arguments

Rule = Callable[[Builder, Call], Any]
_NEVER = float(np.finfo(np.float32).min)  # in place of -inf: a row without any key gives no NaN


def attention(b: Builder, node: Call) -> str:
    """`scaled_dot_product_attention`, with a boolean or additive mask, causal or not, and grouped queries."""
    given = arguments(node)
    query, key, value = node.args[:3]
    dtype, rank = node.meta["val"].dtype, node.meta["val"].dim()
    scale = given.get("scale") or 1 / math.sqrt(b.shape_of(query)[-1])  # type: ignore[arg-type]
    k, v = b.value(key), b.value(value)
    if given.get("enable_gqa"):
        k, v = _repeat_heads(b, query, key, k), _repeat_heads(b, query, value, v)
    heads = b.shape_of(query)[1] if rank == 4 else None
    if b.dialect.fused_attention and heads and dtype == torch.float32:
        return _fused(b, node, k, v, heads, float(scale))
    scaled = _scaled(b, b.value(query), float(scale), dtype)
    # a product with a transposed factor: OpenVINO reads keys as they are, and would not fuse a Transpose of theirs
    scores = b.emit("Einsum", scaled, k, equation="...qd,...kd->...qk")
    if bias := _bias(b, node):
        scores = b.emit("Add", scores, bias)
    return b.emit("MatMul", b.emit("Softmax", scores, axis=-1), v)


def _scaled(b: Builder, query: str, scale: float, dtype: torch.dtype) -> str:
    """Queries times the scale; those that come from codes have it in the step that makes them numbers again."""
    made = b.maker(query)
    if made is None or made.op_type != "DequantizeLinear":
        return b.emit("Mul", query, b.value(scale, dtype))
    codes, step, *zero = made.input
    wider = numpy_helper.to_array(b.constants[step]) * np.float32(scale)
    return b.emit("DequantizeLinear", codes, b.constant(wider), *zero)


def _fused(b: Builder, node: Call, k: str, v: str, heads: int, scale: float) -> str:
    """One `MultiHeadAttention`. It reads and writes `(batch, tokens, heads * width)`; the transposes that this asks for
    cancel those that a model has round its attention. Biases of the projections are added inside."""
    query, key = node.args[:2]
    parts = [_packed(b, source, name) for source, name in zip(node.args[:3], (b.value(query), k, v), strict=True)]
    unbiased = [_unbiased(b, part) for part in parts]
    offsets = ""
    if all(bias for _, bias in unbiased):
        parts = [part for part, _ in unbiased]
        offsets = b.emit("Concat", *[bias for _, bias in unbiased], axis=0)
    mask = _bias(b, node)
    if mask:
        rows = b.emit("Concat", b.ints(1, 1), b.dimension(query, -2), b.dimension(key, -2), axis=0)
        mask = b.emit("Expand", mask, rows)
    given = [*parts, offsets, "", mask]
    while not given[-1]:
        given.pop()
    made = b.emit("MultiHeadAttention", *given, domain="com.microsoft", num_heads=heads, scale=scale)
    return b.emit("Transpose", b.emit("Reshape", made, b.ints(0, 0, heads, -1)), perm=[0, 2, 1, 3])


def _packed(b: Builder, source: Call, name: str) -> str:
    """`(batch, heads, tokens, width)` as `(batch, tokens, heads * width)`: what was split into heads, if it was."""
    straight = b.emit("Transpose", name, perm=[0, 2, 1, 3])
    split, whole = b.maker(straight), _before_split(source)
    if split is not None and split.op_type == "Reshape" and whole is not None and b.value(whole) == split.input[0]:
        return split.input[0]
    return b.emit("Reshape", straight, b.ints(0, 0, -1))


def _before_split(source: Call) -> Call | None:
    """The `(batch, tokens, heads * width)` that a `view` and a `transpose` turned into `source`."""
    if base_name(source.target) not in ("transpose", "permute"):
        return None
    view = source.args[0]
    if not isinstance(view, fx.Node) or base_name(view.target) not in ("view", "reshape", "unflatten"):
        return None
    whole: Any = view.args[0]
    have, wide = whole.meta["val"].shape, view.meta["val"].shape
    return whole if len(have) == 3 and list(map(str, have[:2])) == list(map(str, wide[:2])) else None


def _unbiased(b: Builder, name: str) -> tuple[str, str]:
    """A product without its bias, and the bias; the value as it is and "" where it has no constant one."""
    node = b.maker(name)
    if node is None or node.op_type != "Add" or node.input[1] not in b.constants:
        return name, ""
    product = b.maker(node.input[0])
    if product is None or product.op_type != "MatMul" or len(b.constants[node.input[1]].dims) != 1:
        return name, ""
    return node.input[0], node.input[1]


def _bias(b: Builder, node: Call) -> str:
    """What is added to the scores: the mask and the causal triangle; "" if there is neither."""
    given, (query, key) = arguments(node), node.args[:2]
    dtype = node.meta["val"].dtype
    parts = [_causal(b, query, key, dtype)] if given.get("is_causal") else []
    if (mask := given.get("attn_mask")) is not None:
        parts.append(_additive(b, mask, dtype))
    return b.emit("Add", *parts) if len(parts) == 2 else "".join(parts)


def _additive(b: Builder, mask: Call, dtype: torch.dtype) -> str:
    if mask.meta["val"].dtype != torch.bool:
        return b.value(mask, dtype)
    return b.emit("Where", b.value(mask), b.value(0.0, dtype), b.value(_NEVER, dtype))


def _causal(b: Builder, query: Call, key: Call, dtype: torch.dtype) -> str:
    rows, columns = b.dimension(query, -2), b.dimension(key, -2)
    full = b.emit("Expand", b.value(_NEVER, dtype), b.emit("Concat", rows, columns, axis=0))
    return b.emit("Trilu", full, b.constant(np.array(1, np.int64)), upper=1)


def _repeat_heads(b: Builder, query: Call, key: Call, k: str) -> str:
    times = (b.shape_of(query)[-3] or 1) // (b.shape_of(key)[-3] or 1)
    if times == 1:
        return k
    heads = b.shape_of(query)[-3]
    wide = b.emit("Tile", b.emit("Unsqueeze", k, b.ints(2)), b.ints(1, 1, times, 1, 1))
    last = b.shape_of(key)[-1]
    return b.emit("Reshape", wide, b.emit("Concat", b.dimension(key, 0), b.ints(heads, -1, last), axis=0))  # type: ignore[arg-type]


RULES: dict[str, Rule] = {"scaled_dot_product_attention": attention}
