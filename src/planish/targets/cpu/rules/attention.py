"""Attention: two products round a softmax, which both engines fuse."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

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
    order = [*range(rank - 2), rank - 1, rank - 2]
    scaled = b.emit("Mul", b.value(query), b.value(scale, dtype))
    scores = b.emit("MatMul", scaled, b.emit("Transpose", k, perm=order))
    if bias := _bias(b, node):
        scores = b.emit("Add", scores, bias)
    return b.emit("MatMul", b.emit("Softmax", scores, axis=-1), v)


def _fused(b: Builder, node: Call, k: str, v: str, heads: int, scale: float) -> str:
    """One `MultiHeadAttention`. It reads and writes `(batch, tokens, heads * width)`; the transposes that this asks for
    cancel those that a model has round its attention."""
    query, key = node.args[:2]
    packed = [_packed(b, name) for name in (b.value(query), k, v)]
    bias = _bias(b, node)
    if bias:
        rows = b.emit("Concat", b.ints(1, 1), b.dimension(query, -2), b.dimension(key, -2), axis=0)
        bias = b.emit("Expand", bias, rows)
    given = (*packed, "", "", bias) if bias else packed
    made = b.emit("MultiHeadAttention", *given, domain="com.microsoft", num_heads=heads, scale=scale)
    return b.emit("Transpose", b.emit("Reshape", made, b.ints(0, 0, heads, -1)), perm=[0, 2, 1, 3])


def _packed(b: Builder, name: str) -> str:
    """`(batch, heads, tokens, width)` as `(batch, tokens, heads * width)`."""
    return b.emit("Reshape", b.emit("Transpose", name, perm=[0, 2, 1, 3]), b.ints(0, 0, -1))


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
