"""Operations made of multiply-accumulates: how many of them, and what is computed beside them."""

from __future__ import annotations

import math
from collections.abc import Callable

from planish.analysis.rules.call import Array, Call


def _inner(name: str) -> Callable[[Call], float]:
    """Products over the last axis of the argument `name`, one for each number of the result."""
    return lambda c: c.out.size * c[name].shape[-1]


def _conv(c: Call) -> float:
    return c.out.size * math.prod(c["weight"].shape[1:])


def _conv_transpose(c: Call) -> float:
    return c["input"].size * math.prod(c["weight"].shape[1:])


def _convolution(c: Call) -> float:
    return _conv_transpose(c) if c["transposed"] else _conv(c)


def _scores(c: Call) -> int:
    """Query-key pairs that attention needs; under a causal mask row i sees the first i + 1 keys only."""
    query, keys = c["query"].shape, c["key"].shape[-2]
    rows = query[-2]
    pairs = rows * keys
    if c["is_causal"]:
        full = max(0, rows - keys)
        pairs = full * keys + (rows - full) * (rows - full + 1) // 2
    return math.prod(query[:-2]) * pairs


def _attention(c: Call) -> float:
    return _scores(c) * (c["query"].shape[-1] + c["value"].shape[-1])


def _projected_attention(c: Call) -> float:
    """Four projections and attention, as the fused encoder kernels do them; the argument of width E comes first."""
    first = c.first
    batch, length, width = first.shape if len(first.shape) == 3 else (1, *first.shape)
    return 4 * first.size * width + 2 * batch * length * length * width


def _encoder_layer(c: Call) -> float:
    return _projected_attention(c) + 2 * c.first.size * c["ffn_weight_1"].shape[0]


def _matrices(c: Call) -> list[Array]:
    return [p for p in c["params"] if len(p.shape) == 2]


def _steps(c: Call) -> int:
    """Time steps times batch."""
    x = c["data"] if "data" in c.arguments else c["input"]
    return x.size // x.shape[-1]


def _recurrent(c: Call) -> float:
    return _steps(c) * sum(p.size for p in _matrices(c))


def _cell(c: Call) -> float:
    return c["input"].size // c["input"].shape[-1] * (c["w_ih"].size + c["w_hh"].size)


def _einsum(c: Call) -> float:
    """Operands are contracted pairwise from the left; each step costs the product of the sizes of its indices."""
    terms, _, result = c["equation"].replace(" ", "").partition("->")
    subscripts = terms.split(",")
    sizes: dict[str, int] = {}
    batch = 1
    for term, operand in zip(subscripts, c["tensors"], strict=True):
        head, dots, tail = term.partition("...")
        sizes.update(zip(head, operand.shape, strict=False))
        if tail:
            sizes.update(zip(tail, operand.shape[-len(tail) :], strict=True))
        if dots:
            batch = max(batch, math.prod(operand.shape[len(head) : len(operand.shape) - len(tail)]))
    total, held = 0, set(subscripts[0])
    for position, term in enumerate(subscripts[1:], start=1):
        indices = (held | set(term)) - {"."}
        total += batch * math.prod(sizes[i] for i in indices)
        held = indices & (set(result) | set("".join(subscripts[position + 1 :])))
    return total


def _bilinear(c: Call) -> float:
    rows = c["input1"].size // c["input1"].shape[-1]
    return rows * (c["weight"].size + c["weight"].shape[0] * c["input2"].shape[-1])


MACS: dict[str, Callable[[Call], float]] = {
    "linear": _inner("input"),
    "mm": _inner("self"),
    "bmm": _inner("self"),
    "mv": _inner("self"),
    "dot": lambda c: c["self"].size,
    "vdot": lambda c: c["self"].size,
    "vecdot": lambda c: c["x"].size,
    "matmul": _inner("self"),
    "linalg_matmul": _inner("self"),
    "inner": _inner("self"),
    "_int_mm": _inner("self"),
    "_scaled_mm": _inner("self"),
    "addmm": _inner("mat1"),
    "addmv": _inner("mat"),
    "addbmm": lambda c: c["batch1"].size * c["batch2"].shape[-1],
    "baddbmm": _inner("batch1"),
    "_grouped_mm": lambda c: c["self"].size * c["mat2"].shape[-1],
    "tensordot": lambda c: c.out.size * math.prod(c["self"].shape[d] for d in c["dims_self"]),
    "einsum": _einsum,
    "bilinear": _bilinear,
    "outer": lambda c: c.out.size,
    "ger": lambda c: c.out.size,
    "addr": lambda c: c.out.size,
    "kron": lambda c: c.out.size,
    "conv1d": _conv,
    "conv2d": _conv,
    "conv3d": _conv,
    "_conv_depthwise2d": _conv,
    "conv_depthwise3d": _conv,
    "conv_tbc": lambda c: c.out.size * math.prod(c["weight"].shape[:2]),
    "convolution": _convolution,
    "_convolution": _convolution,
    "conv_transpose1d": _conv_transpose,
    "conv_transpose2d": _conv_transpose,
    "conv_transpose3d": _conv_transpose,
    "scaled_dot_product_attention": _attention,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_flash_attention": _attention,
    "_native_multi_head_attention": _projected_attention,
    "_transformer_encoder_layer_fwd": _encoder_layer,
    "lstm": _recurrent,
    "gru": _recurrent,
    "rnn_tanh": _recurrent,
    "rnn_relu": _recurrent,
    "lstm_cell": _cell,
    "gru_cell": _cell,
    "rnn_tanh_cell": _cell,
    "rnn_relu_cell": _cell,
}


# What those operations do beside their multiply-accumulates -----------------------------------------------------------


def _bias(name: str = "bias") -> Callable[[Call], float]:
    return lambda c: c.out.size if isinstance(c[name], Array) else 0


def _softmax_of_scores(c: Call) -> float:
    return 6 * _scores(c)  # scale, maximum, difference, exponential, sum, quotient


def _gates(per_row: float) -> Callable[[Call], float]:
    """Each row of a weight matrix is one gate's input: its bias, activation and share of the state's update."""
    return lambda c: per_row * _steps(c) * sum(p.shape[0] for p in _matrices(c))


EXTRA: dict[str, Callable[[Call], float]] = {
    **{name: _bias() for name in ("linear", "convolution", "_convolution", "_conv_depthwise2d", "conv_depthwise3d")},
    **{f"conv{transpose}{rank}d": _bias() for transpose in ("", "_transpose") for rank in (1, 2, 3)},
    **{name: lambda c: c.out.size for name in ("addmm", "addmv", "addbmm", "baddbmm")},
    "scaled_dot_product_attention": _softmax_of_scores,
    "_scaled_dot_product_flash_attention_for_cpu": _softmax_of_scores,
    "_scaled_dot_product_flash_attention": _softmax_of_scores,
    "lstm": _gates(2.5),
    "gru": _gates(2.5),
    "rnn_tanh": _gates(1.5),
    "rnn_relu": _gates(1.5),
}
