"""Divide an activation, channel by channel, without changing what the model computes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from planish.compress.expression import scaled_by
from planish.compress.sites import Site, free_name, roles
from planish.graph import Editor, Graph, Node
from planish.graph.evaluate import fold

SHAPE_OPS = frozenset(
    {"view", "reshape", "transpose", "permute", "contiguous", "clone", "dropout", "flatten", "unflatten"}
)
"""Operations that move numbers and change none (dropout: in evaluation, and a scale passes through it in training)."""


@dataclass(frozen=True)
class Change:
    """What is done to each channel of an activation before its readers: `(x - shift) / scale`, both `(channels,)`."""

    scale: Tensor
    shift: Tensor | None = None


def migrate(graph: Graph, changes: list[tuple[Site, Change]]) -> Graph:
    """Change the activation of each site, and its layers' weights and biases such that their outputs stay."""
    edit = graph.edit()
    makers = producers(graph, [site for site, _ in changes])
    for site, change in changes:
        for layer in site.layers:
            if change.shift is not None:
                add_to_bias(edit, layer, change.shift)
            _scale_tensor(edit, layer.weight, change.scale, roles(layer).in_axis)
        maker = makers.get(site.source.name)
        if maker is None:
            _insert(edit, site, change)
            continue
        bias = maker.bias or _norm_bias(maker)
        if change.shift is not None:
            assert bias is not None
            name = str(bias.target)
            edit.set_tensor(name, edit.graph.tensors[name].detach() - change.shift)
        _scale_tensor(edit, maker.weight or _norm_weight(maker), 1 / change.scale, 0 if maker.op != "addmm" else 1)
        _scale_tensor(edit, bias, 1 / change.scale, 0)
    return edit.done()


def shifts(site: Site, maker: Node | None) -> bool:
    """Whether the readers of an activation can make up for a shift of it: all have a bias of their own, and what makes
    it is a layer norm with a bias right before them, or a division is put in front of them anyway."""
    own = all(layer.bias is not None and _owns(layer, layer.bias) for layer in site.layers)
    return own and (maker is None or (maker == site.source and _norm_bias(maker) is not None))


def add_to_bias(edit: Editor, layer: Node, shift: Tensor) -> None:
    """Make up for a shift of what a layer reads, by its bias."""
    assert layer.weight is not None
    assert layer.bias is not None
    weight = fold(edit.graph, layer.weight.fx)
    assert weight is not None
    weight, name = weight.detach().double(), str(layer.bias.target)
    old = edit.graph.tensors[name].detach()
    moved = (weight if roles(layer).in_axis == 1 else weight.T) @ shift.double()
    edit.set_tensor(name, (old.double() + moved).to(old.dtype))


def _insert(edit: Editor, site: Site, change: Change) -> None:
    first = edit.node(site.layers[0].name)
    stem = free_name(edit.graph.tensors, f"{site.path}.input", ["__smooth", "__shift"])
    source = edit.node(site.source.name)
    factor = edit.add(f"{stem}__smooth", 1 / change.scale)
    moved = edit.call(torch.ops.aten.mul.Tensor, source, factor, before=first)
    if change.shift is not None:
        offset = edit.add(f"{stem}__shift", -change.shift / change.scale)
        moved = edit.call(torch.ops.aten.add.Tensor, moved, offset, before=first)
    for layer in site.layers:
        edit.replace_input(edit.node(layer.name), source, moved)


def producers(graph: Graph, found: Iterable[Site]) -> dict[str, Node]:
    """For each site, by its source's name, the layer that a division can be folded into; absent where there is none."""
    result: dict[str, Node] = {}
    through: dict[str, tuple[Node, Node]] = {}
    for site in found:
        if set(site.source.users) != set(site.layers):
            continue
        node = origin(site.source)
        if node.op == "layer_norm" and _owns(node, _norm_weight(node), _norm_bias(node)):
            result[site.source.name] = node
        elif node.op == "linear" and _owns(node, node.weight, node.bias):
            through[site.source.name] = (node, node)
        elif node.op == "scaled_dot_product_attention":
            values = origin(node.args[2])
            if values.op == "linear" and _owns(values, values.weight, values.bias) and _used_once(node.args[2], node):
                through[site.source.name] = (values, node)
    for source in _channels_keep_order(graph, through):
        result[source] = through[source][0]
    return result


def origin(node: Node) -> Node:
    """What makes the numbers that a node holds: back through operations that only move them, read by nothing else."""
    while node.op in SHAPE_OPS and node.inputs and len(node.inputs[0].users) == 1:
        node = node.inputs[0]
    return node


def _used_once(value: Node, reader: Node) -> bool:
    return value.users == (reader,) and sum(argument == value for argument in reader.args) == 1


def _owns(node: Node, *tensors: Node | None) -> bool:
    """Whether the layer has its first tensor, and nothing else reads any of them."""
    given = [tensor for tensor in tensors if tensor is not None]
    return tensors[0] is not None and all(scaled_by(tensor) is not None and tensor.users == (node,) for tensor in given)


def _norm_weight(node: Node) -> Node | None:
    return node.argument("weight")


def _norm_bias(node: Node) -> Node | None:
    return node.argument("bias")


def _scale_tensor(edit: Editor, place: Node | None, factor: Tensor, axis: int) -> None:
    if (bottom := scaled_by(place)) is None:
        return
    name = str(bottom.target)
    old = edit.graph.tensors[name].detach()
    edit.set_tensor(name, old * factor.reshape([-1 if dim == axis else 1 for dim in range(old.dim())]).to(old.dtype))


def _channels_keep_order(graph: Graph, through: dict[str, tuple[Node, Node]]) -> list[str]:
    """The sources whose last axis holds the channels of their origin's last axis in order, whatever lies between.

    Found by running the model once on its example, with each origin giving its own channel numbers and attention
    handing on its values.
    """
    if not through:
        return []
    makers = {maker.name for maker, _ in through.values()}
    mixers = {node.name for maker, node in through.values() if node != maker}
    wanted = {name: maker for name, (maker, _) in through.items()}
    kept: list[str] = []

    class Trace(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if n.name in makers:
                value = torch.arange(value.shape[-1], dtype=value.dtype).expand(value.shape).contiguous()
            if n.name in mixers:
                handed_on = n.args[2]
                assert isinstance(handed_on, fx.Node)
                values = self.env[handed_on]
                value = values if values.shape == value.shape else torch.full_like(value, -1)
            if n.name in wanted:
                width = wanted[n.name].shape
                channels = torch.arange(value.shape[-1], dtype=value.dtype)
                if width is not None and width[-1] == value.shape[-1] and bool((value == channels).all()):
                    kept.append(n.name)
            return value

    with torch.no_grad():
        Trace(graph.module()).run(*graph.flat_inputs(*graph.example), enable_io_processing=False)
    return kept
