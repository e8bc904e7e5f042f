"""Weights as integers: the scales of a layer's channels go behind its sums, as fixed-point multipliers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from planish.formats import Format, Int
from planish.graph import ROLES, Node
from planish.graph.evaluate import base_name_of, fold
from planish.targets.fpga.lowering.dyadic import dyadic
from planish.targets.fpga.preparing.context import Preparation

MOST_BITS = 16
NEAR = 2.0**-21
"""Of the largest integer is how far from an integer what float32 has computed may be."""


@dataclass(frozen=True)
class Integral:
    """Weights that are integers times a scale.

    Attributes:
        codes: Integers, in float64.
        scale: Of each output channel, `()` or `(channels,)`.
        bits: Of the codes.
    """

    codes: Tensor
    scale: Tensor
    bits: int


def layer(preparation: Preparation, node: Node) -> None:
    """Give a layer integer weights; its multipliers, and those of a batch norm behind it, go behind its sums."""
    assert node.weight is not None
    value = fold(preparation.edit.graph, node.weight.fx)
    if value is None:
        preparation.refuse(node, "its weight is computed from an input")
        return
    bias = None if node.bias is None else fold(preparation.edit.graph, node.bias.fx)
    found = _whole(value.detach().double())
    if found is not None:
        preparation.states[node.fx] = "exact"
        return
    integral = _integral(preparation, node, value.detach().double())
    if isinstance(integral, str):
        preparation.refuse(node, integral)
        return
    _behind(preparation, node, integral, bias)


def _whole(value: Tensor) -> Integral | None:
    """Weights that are integers of at most 16 bits times one power of two already."""
    found = dyadic(value.numpy())
    if found is None or int(np.abs(found[0]).max()).bit_length() >= MOST_BITS:
        return None
    return Integral(torch.from_numpy(found[0]).double(), torch.tensor(2.0 ** -found[1]).double(), MOST_BITS)


def _integral(preparation: Preparation, node: Node, value: Tensor) -> Integral | str:
    cast = cast_of(node.weight)
    if cast is None or cast.format is None:
        return "its weight is not quantized: Quantize comes first, or training in fixed point"
    form, graph = cast.format, preparation.edit.graph
    whole = isinstance(form.element, Int) or getattr(form.element, "grid", None) is not None
    if not whole or form.is_dynamic or len(form.levels) == 0 or form.residual is not None:
        return f"{form} has no integer meaning"
    given = fold(graph, cast.args[1][0].fx)
    if given is None:
        return f"the scales of {form} are computed from an input"
    scale = given.detach().double()
    axis = ROLES[node.op].out_axis
    wide = [place for place, size in enumerate(scale.shape) if size > 1]
    channels = node.value.shape[1 if node.op.startswith("conv") else -1]
    if wide not in ([], [axis]) or (wide and scale.numel() != channels):
        return (
            f"{form} has a scale for each block; hardware has one for each output channel, or blocks of powers of two"
        )
    scale = scale.reshape(-1 if wide else ())
    codes = value / _along(scale, axis, value.dim())
    codes = torch.where(torch.isfinite(codes), codes, 0.0)
    step = _step(codes)
    if step is None:
        return f"its weight is an expression that is no integer times the scales of {form}"
    codes = (codes / step).round()
    bits = int(codes.abs().max()).bit_length() + 1
    return Integral(codes, scale * step, bits)


def _step(codes: Tensor) -> float | None:
    """The power of two of which all numbers are multiples; None if that takes more than 16 bits."""
    for places in range(MOST_BITS):
        scaled = codes * 2.0**places
        largest = float(scaled.abs().max())
        if largest > 2.0 ** (MOST_BITS - 1) + 0.5:
            return None
        if float((scaled - scaled.round()).abs().max()) <= NEAR * max(largest, 1.0):
            return 2.0**-places
    return None


def cast_of(weight: Node | None) -> Node | None:
    """The cast in a weight's expression."""
    if weight is None or weight.op == "cast":
        return weight
    return next((found for source in weight.inputs if (found := cast_of(source)) is not None), None)


def _along(scale: Tensor, axis: int, rank: int) -> Tensor:
    return scale.reshape([-1 if place == axis else 1 for place in range(rank)]) if scale.dim() else scale


def _behind(preparation: Preparation, node: Node, integral: Integral, bias: Tensor | None) -> None:
    edit, axis, rank = preparation.edit, ROLES[node.op].out_axis, integral.codes.dim()
    channels = node.value.shape[1 if node.op.startswith("conv") else -1]
    scale, offset = integral.scale, None if bias is None else bias.detach().double()
    codes, after = integral.codes, node
    norm = node.users[0] if len(node.users) == 1 and node.users[0].op == "batch_norm" else None
    if norm is not None and not norm.argument("training"):
        gain, shift = affine(preparation, norm)
        scale = scale * gain
        offset = (torch.zeros(channels).double() if offset is None else offset) * gain + shift
        codes = codes * _along(scale.sign(), axis, rank)
        scale, after = scale.abs(), norm
    scale = torch.where(scale > 0, scale, scale.max().clamp(min=2.0**-20))
    frac = integral.bits - 1
    gains = scale * 2.0**frac
    stem = _stem(preparation, node)
    weight = edit.add(f"{stem}__integer", (codes * 2.0**-frac).float(), trainable=True)
    form = Format(Int(integral.bits, frac), scale=None)
    args = list(node.args)
    args[ROLES[node.op].weight] = preparation.cast_to(weight, form, node)
    preparation.states[args[ROLES[node.op].weight].fx] = "constant"
    by = multiplier_of(preparation, gains, node)
    place = ROLES[node.op].bias
    if offset is not None and place is not None:
        args = [*args, *[None] * (place + 1 - len(args))]
        known = edit.graph.tensors[by.target].double() if by is not None else torch.ones(()).double()
        args[place] = edit.add(
            f"{stem}__offset", (offset / known.reshape(-1 if known.dim() else ())).float(), trainable=True
        )
    edit.set_args(node, *args, **node.kwargs)
    preparation.states[node.fx] = "exact"
    if by is None:
        if after is not node:
            edit.replace(after, node)
        return
    reader = preparation.following(node)
    scaled = preparation.call("mul.Tensor", node, by, before=reader, path=node.path or None)
    if after is not node:
        edit.replace(after, scaled)
        edit.erase(after)
    else:
        edit.replace(node, scaled)


def multiplier_of(preparation: Preparation, gains: Tensor, node: Node) -> Node | None:
    """The multipliers behind a layer, along its channels; None where they are all 1."""
    if bool((gains == 1).all()):
        return None
    if node.op.startswith("conv") and gains.dim():
        gains = gains.reshape(-1, *[1] * (node.value.dim() - 2))
    return preparation.constant(gains, node, "multiplier")


def affine(preparation: Preparation, norm: Node) -> tuple[Tensor, Tensor]:
    """What a batch norm multiplies with and adds, in float64, `(channels,)`."""

    def tensor(name: str) -> Tensor | None:
        node = norm.argument(name)
        return None if node is None else preparation.edit.graph.tensors[node.target].detach().double()

    mean, variance, gain, shift = (tensor(name) for name in ("running_mean", "running_var", "weight", "bias"))
    assert mean is not None
    assert variance is not None
    factor = torch.rsqrt(variance + norm.argument("eps")) * (1.0 if gain is None else gain)
    return factor, (0.0 if shift is None else shift) - mean * factor


def _stem(preparation: Preparation, node: Node) -> str:
    assert node.weight is not None
    name, taken, count = base_name_of(node.weight.fx) or node.name, preparation.edit.graph.tensors, 0
    stem = name
    while f"{stem}__integer" in taken or f"{stem}__offset" in taken:
        count += 1
        stem = f"{name}_{count}"
    return stem
