"""Weights whose products cannot overflow 16 bits in pairs.

x86 processors without VNNI multiply unsigned 8-bit activations by signed 8-bit weights with `vpmaddubsw`, which adds
each two neighboring products in 16 bits, and saturates. A pair cannot overflow if its positive codes add up to at most
128 and its negative ones to at least -128, for `255 * 128 < 2**15`. Most pairs of 8-bit codes keep to that anyway; with
slightly larger scales only few must move, which costs far less than a bit of every weight.
"""

# ruff: noqa: A001, A002  (`format` is the word for it everywhere else)

from __future__ import annotations

import torch
from torch import Tensor

from planish.compress.sites import replace_tensor, roles
from planish.errors import OptionError
from planish.formats import TENSOR, Format, Int
from planish.formats.scaling import ranges
from planish.graph import Graph, Node

LIMIT = 128
"""What the codes of a pair may add up to, on each side of zero."""
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""How much of the growth that leaves no pair too large is tried."""


def check(format: Format) -> None:
    """Whether the codes of a format of weights can be kept to pairs.

    Raises:
        OptionError: It is not one of signed integers with a scale, or has a zero point or scales of scales.
    """
    element = format.element
    signed = isinstance(element, Int) and element.signed and not element.frac
    if not signed or format.is_affine or format.scale is None or format.scale.scale is not None:
        raise OptionError(f"pairs are of signed integers with one scale, not {format}", "pair_bits", "weights='int8'")


def applies(node: Node) -> bool:
    """Whether a layer's weight can overflow: cast to more than 7 bits, and multiplied in pairs of input channels."""
    weight = node.weight
    if weight is None or weight.op != "cast" or weight.inputs[0].kind != "tensor" or weight.format is None:
        return False
    return weight.format.bits > 7 and int(weight.value.shape[roles(node).in_axis]) > 1


def round_weight(graph: Graph, node: Node) -> None:
    """Replace a layer's weight, and its scale, by codes that keep to pairs, each near the weight it stands for."""
    cast = node.weight
    assert cast is not None
    assert cast.format is not None
    name, axis = str(cast.inputs[0].target), roles(node).in_axis
    weight = graph.tensors[name]
    grow_scale(graph, node, torch.ones(weight.shape[axis]))
    scale = _spread(cast.format, graph.tensors[str(cast.args[1][0].target)], weight)
    replace_tensor(graph, name, (_codes(weight, scale, cast.format, axis) * scale).to(weight.dtype))


def grow_scale(graph: Graph, node: Node, importance: Tensor) -> None:
    """Let the scales of a layer's weight grow by what loses least once the codes keep to pairs.

    Args:
        graph: Its scale is changed.
        node: The layer.
        importance: What a squared error counts by input channel, `(in,)`.
    """
    cast = node.weight
    assert cast is not None
    assert cast.format is not None
    format, axis, name = cast.format, roles(node).in_axis, str(cast.args[1][0].target)
    weight, scale = graph.tensors[str(cast.inputs[0].target)].detach(), graph.tensors[name]
    assert format.scale is not None
    counts = importance.reshape([-1 if place == axis % weight.dim() else 1 for place in range(weight.dim())])
    block = format.block or TENSOR
    sums = _fitting(weight / _spread(format, scale, weight), axis)
    growth = ranges(sums, block, both=False)[1].reshape(scale.shape).clamp_(min=1.0) - 1.0
    best, least = scale, None
    for share in SHARES:
        trial = format.scale.cast(scale * (1 + share * growth))
        spread = _spread(format, trial, weight)
        error = (_codes(weight, spread, format, axis) * spread - weight).square() * counts
        total = block.sum(error).reshape(scale.shape)
        if least is None:
            least = total
        best, least = torch.where(total < least, trial, best), torch.minimum(total, least)
    graph.tensors[name] = best


def _spread(format: Format, scale: Tensor, weight: Tensor) -> Tensor:
    block = format.block or TENSOR
    return block.join(block.split(torch.ones(weight.shape)) * block.spread(scale, weight.shape), weight.shape)


def _fitting(codes: Tensor, axis: int) -> Tensor:
    """By how much each number is too large for its pair: a factor, in the shape of the weight."""
    codes = codes.movedim(axis, -1)
    if codes.shape[-1] % 2:
        return (codes.abs() * (2 / LIMIT)).movedim(-1, axis)
    sums = (codes[..., ::2] + codes[..., 1::2]).abs() / LIMIT
    return torch.stack([sums, sums], -1).flatten(-2).movedim(-1, axis)


def _codes(weight: Tensor, scale: Tensor, format: Format, axis: int) -> Tensor:
    """The nearest codes, where a pair would overflow each moved by half of what is too much."""
    assert isinstance(format.element, Int)
    codes = (weight.detach() / scale).round_().clamp_(format.element.lowest, format.element.highest)
    return _fit(codes.movedim(axis, -1)).movedim(-1, axis)


def _fit(codes: Tensor) -> Tensor:
    """`(..., in)`, whole numbers, overwritten. Where the channels are odd in number, kernels disagree on which are a
    pair: no code may then exceed half the limit."""
    if codes.shape[-1] % 2:
        return codes.clamp_(-LIMIT // 2, LIMIT // 2)
    left, right = codes[..., ::2], codes[..., 1::2]
    excess = left + right
    excess -= excess.clamp(-LIMIT, LIMIT)  # none in a pair of both signs
    half = (excess / 2).trunc_()
    right -= half
    left -= excess.sub_(half)
    return codes


class Partners:
    """Keeps columns of codes to pairs while they are rounded one after the other, in any order."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._codes: dict[int, Tensor] = {}

    def keep(self, values: Tensor, scale: Tensor, place: int) -> Tensor:
        """A column of whole multiples of `scale`, those that overflow with the other column of their pair bounded."""
        codes = (values / scale).round()
        low, high = -LIMIT, LIMIT
        if self._width % 2:
            low, high = -LIMIT // 2, LIMIT // 2
        elif (other := self._codes.get(place ^ 1)) is not None:
            low, high = -LIMIT - other.clamp(max=0), LIMIT - other.clamp(min=0)
        self._codes[place] = torch.clamp(codes, torch.as_tensor(low), torch.as_tensor(high))
        return self._codes[place] * scale

    def settle(self, columns: Tensor, best: Tensor) -> None:
        """Of several candidates for each row of these columns, `(tries, out)`, keep the one chosen, `(out,)`."""
        for place in columns.tolist():
            self._codes[place] = self._codes[place].gather(0, best[None])
