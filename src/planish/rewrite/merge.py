"""Take adapters into the weights that they stand beside."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from planish.errors import OptionError
from planish.graph import ROLES, Data, Editor, Graph, Node, Pass, Progress, Selector, Step, parse_selector
from planish.graph.evaluate import base_name_of, fold

aten = torch.ops.aten


@dataclass(frozen=True)
class Merge(Pass):
    """Give each weight that has an adapter the values that it has with it, and drop the adapter.

    Exact where the weight is a tensor. Where it is a cast, the sum is rounded to the cast's format again, with new
    scales, and where it is masked the mask stays: the fewer bits and the more zeros, the more of the adapter is lost. A
    weight that others read without the adapter is copied first. All parameters of the graph may learn again.

    Attributes:
        where: The layers.
    """

    where: Selector | str = "weighted"

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", parse_selector(self.where))

    def plan(self, graph: Graph) -> list[Step]:
        """One step for each weight with an adapter."""
        steps = []
        for layer in self._layers(graph):
            weight = layer.weight
            assert weight is not None
            inner = _inner(_lowest(weight))
            action = "adapter merged" if inner.kind == "tensor" else "adapter merged, weight rounded again"
            steps.append(Step(layer.path, layer.name, action))
        return steps

    def draft(self, graph: Graph) -> Graph:
        """The graph without adapters."""
        return self.apply(graph, None, lambda *_: None)

    def apply(self, graph: Graph, data: Data | None, progress: Progress) -> Graph:
        """The graph without adapters."""
        result = graph.replace(tensors=_learning(graph.tensors))
        for name in [layer.name for layer in self._layers(graph)]:
            while (low := _lowest(result.node(name).weight)) is not None:
                edit = result.edit()
                _merge(edit, edit.node(name), edit.node(low.name))
                result = edit.done()
        return result

    def _layers(self, graph: Graph) -> list[Node]:
        """The first layer that reads each weight with an adapter."""
        first: dict[Node, Node] = {}
        for node in graph.select(self.where):
            if node.op in ROLES and node.weight is not None and _lowest(node.weight) is not None:
                first.setdefault(node.weight, node)
        if not first:
            raise OptionError(
                f"the selector {str(self.where)!r} matches no weight with an adapter", "where", "Adapt first"
            )
        return list(first.values())


def _inner(node: Node | None) -> Node:
    """The operand of a step that leads to the weight's own tensor."""
    assert node is not None
    name = base_name_of(node.fx)
    return next(source for source in node.inputs if base_name_of(source.fx) == name)


def _lowest(weight: Node | None) -> Node | None:
    """The sum of a weight expression that adds its innermost adapter; None without one."""
    found, step = None, weight
    while step is not None and step.kind == "call" and base_name_of(step.fx):
        inner = _inner(step)
        if step.op == "add" and any(_is_adapter(source) for source in step.inputs if source != inner):
            found = step
        step = inner
    return found


def _is_adapter(term: Node) -> bool:
    """Whether a term is a number times the product of two plain factors: a correction has no number, or casts."""
    if term.op != "mul" or isinstance(term.args[1], Node):
        return False
    product = term.inputs[0].inputs[0] if term.inputs[0].op == "view" else term.inputs[0]
    ends = [str(source.target)[-3:] for source in product.inputs if source.kind == "tensor"]
    return product.op == "matmul" and ends == ["__b", "__a"]


def _merge(edit: Editor, layer: Node, low: Node) -> None:
    top = low
    for user in low.users:  # DoRA multiplies the sum by sizes over the norm of the sum itself
        if user.op == "mul" and any(source.op == "div" and _reads(source, low) for source in user.inputs):
            top = user
    value = fold(edit.graph, top.fx)
    assert value is not None
    edit.replace(top, _stored(edit, layer, _inner(low), value.detach(), shared=len(_inner(low).users) > 1))


def _reads(node: Node, other: Node) -> bool:
    return node == other or any(_reads(source, other) for source in node.inputs)


def _stored(edit: Editor, layer: Node, node: Node, value: Tensor, shared: bool) -> Node:
    """The expression `node` with such values; a new one where others read it too."""
    if node.kind == "tensor":
        name = str(node.target)
        shared = shared or len(node.users) > 1
        shared |= sum(tensor is node.tensor for tensor in edit.graph.tensors.values()) > 1
        if shared:
            return edit.add(_free(edit, f"{name}__merged"), value.clone(), trainable=True)
        edit.set_tensor(name, value.to(edit.graph.tensors[name].dtype).contiguous())
        return node
    inner = _inner(node)
    value = _undone(edit.graph, node, inner, value)
    shared = shared or len(inner.users) > 1
    fresh = _stored(edit, layer, inner, value, shared)
    args, kwargs = [fresh if argument == inner else argument for argument in node.args], node.kwargs
    if node.op == "cast":
        assert node.format is not None
        held = fold(edit.graph, fresh.fx)
        assert held is not None
        scales = []
        for place, tensor in zip(node.args[1], node.format.parameters(held), strict=True):
            if not shared:
                edit.set_tensor(str(place.target), tensor)
            scales.append(edit.add(_free(edit, str(place.target)), tensor) if shared else place)
        args[1] = scales
    return edit.call(node.target, *args, before=layer, **kwargs) if shared else node


def _undone(graph: Graph, node: Node, inner: Node, value: Tensor) -> Tensor:
    """What a step must get to give such values: a cast rounds them, and a mask hides some."""
    others = [fold(graph, source.fx) for source in node.inputs if source != inner]
    if node.op == "cast":
        return value
    if node.op == "add" and len(others) == 1 and others[0] is not None and node.argument("alpha") == 1:
        return value - others[0]
    if node.op == "mul" and len(others) == 1 and others[0] is not None:
        return torch.where(others[0] == 0, value, value / others[0])
    raise OptionError(f"an adapter cannot be merged through {node.op!r}", node.path, "FoldConstants(parameters=True)")


def _free(edit: Editor, name: str) -> str:
    count, free = 0, name
    while free in edit.graph.tensors:
        count += 1
        free = f"{name}_{count}"
    return free


def _learning(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with parameters that learn."""
    new: dict[int, nn.Parameter] = {}
    return {
        name: new.setdefault(id(tensor), nn.Parameter(tensor.detach())) if isinstance(tensor, nn.Parameter) else tensor
        for name, tensor in tensors.items()
    }
