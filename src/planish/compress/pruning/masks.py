"""Masks in a graph: `expression * mask`, one for each weight, however many layers read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from planish.compress.sites import free_name, weight_name
from planish.graph import Graph, Node
from planish.graph.evaluate import base_name_of


def distinct(layers: Iterable[Node]) -> dict[Node, list[Node]]:
    """Each weight expression with the layers among these that read it."""
    found: dict[Node, list[Node]] = {}
    for layer in layers:
        assert layer.weight is not None
        found.setdefault(layer.weight, []).append(layer)
    return found


def with_masks(graph: Graph, layers: Iterable[Node]) -> tuple[Graph, dict[str, str]]:
    """The graph with a mask of ones on each weight, and the mask's tensor by the name of the first layer.

    A weight that has a mask for these layers alone keeps that one.
    """
    edit = graph.edit()
    names: dict[str, str] = {}
    for weight, readers in distinct(layers).items():
        old = mask_of(weight)
        if old is not None and set(weight.users) <= set(readers) and len(old.users) == 1:
            names[readers[0].name] = str(old.target)
            continue
        first = edit.node(readers[0].name)
        stem = free_name(edit.graph.tensors, weight_name(readers[0]), ["__mask"])
        mask = edit.add(f"{stem}__mask", torch.ones(weight.value.shape, dtype=torch.bool))
        source = first.weight
        assert source is not None
        product = edit.call(torch.ops.aten.mul.Tensor, source, mask, before=first)
        for reader in readers:
            edit.replace_input(edit.node(reader.name), source, product)
        names[readers[0].name] = str(mask.target)
    return edit.done(), names


def mask_of(weight: Node) -> Node | None:
    """The mask that the last step of a weight expression multiplies with."""
    if weight.op != "mul":
        return None
    found = [source for source in weight.inputs if source.tensor is not None and source.tensor.dtype == torch.bool]
    return found[0] if found and len(weight.inputs) == 2 else None


def set_masks(graph: Graph, masks: Mapping[str, Tensor]) -> None:
    """Give masks other values; nobody else may hold the graph."""
    for name, mask in masks.items():
        graph.tensors[name] = mask


def is_own(layer: Node) -> bool:
    """Whether nothing but this layer reads the tensor at the bottom of its weight expression."""
    node = layer.weight
    while node is not None and node.kind == "call":
        if len(node.users) != 1:
            return False
        node = next((source for source in node.inputs if base_name_of(source.fx)), None)
    if node is None or node.tensor is None or len(node.users) != 1:
        return False
    same = [other for other in layer.graph.fx.nodes if other.op == "get_attr" and other is not node.fx]
    return all(layer.graph.tensors.get(str(other.target)) is not node.tensor for other in same)


def has_own_bias(layer: Node) -> bool:
    """Whether the layer has a bias that is a tensor and that nothing else reads."""
    return layer.bias is not None and layer.bias.kind == "tensor" and len(layer.bias.users) == 1
