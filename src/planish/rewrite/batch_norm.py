"""Fold batch norms into the layers before them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from planish.graph import ROLES, Data, Editor, Graph, Node, Pass, Progress, Selector, Step, parse_selector


@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """Scale and shift the weights of a linear or convolution layer as the batch norm behind it would its output.

    Exact in evaluation mode but for the rounding of float32 (Jacob et al., arXiv 1712.05877, section 3.2). In training
    the folded layer has no batch statistics any more. A norm stays where the layer before it has other
    readers, shares its weight, or has one that is an expression already.

    Attributes:
        where: The batch norms.
    """

    where: Selector | str = "batch_norm"

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", parse_selector(self.where))

    def plan(self, graph: Graph) -> list[Step]:
        """One step for each batch norm that goes."""
        return [Step(layer.path, norm.name, f"folded into {layer.name}") for norm, layer in self._pairs(graph)]

    def apply(self, graph: Graph, data: Data | None, progress: Progress) -> Graph:
        """The graph without these batch norms."""
        edit = graph.edit()
        for norm, layer in self._pairs(graph):
            _fold(edit, edit.node(norm.name), edit.node(layer.name))
        return edit.done()

    def _pairs(self, graph: Graph) -> list[tuple[Node, Node]]:
        norms = [node for node in graph.select(self.where) if node.op == "batch_norm"]
        return [(norm, norm.inputs[0]) for norm in norms if _folds(norm, norm.inputs[0])]


def _folds(norm: Node, layer: Node) -> bool:
    weight, bias, roles = layer.weight, layer.bias, ROLES.get(layer.op)
    if roles is None or layer.op == "embedding" or norm.argument("training") or layer.users != (norm,):
        return False
    if roles.out_axis == 1 and layer.op != "addmm" and layer.argument("groups") != 1:
        return False  # the output channels of a grouped transposed convolution are spread over two axes
    statistics = (norm.argument("running_mean"), norm.argument("running_var"))
    own = all(tensor.kind == "tensor" and tensor.users == (layer,) for tensor in (weight, bias) if tensor is not None)
    return weight is not None and own and all(isinstance(tensor, Node) for tensor in statistics)


def _fold(edit: Editor, norm: Node, layer: Node) -> None:
    def tensor(name: str) -> Tensor | None:
        node = norm.argument(name)
        return None if node is None else edit.graph.tensors[node.target].detach().double()

    mean, variance = tensor("running_mean"), tensor("running_var")
    gain, shift = tensor("weight"), tensor("bias")
    assert mean is not None
    assert variance is not None
    assert layer.weight is not None
    factor = torch.rsqrt(variance + norm.argument("eps")) * (1.0 if gain is None else gain)
    name, roles = str(layer.weight.target), ROLES[layer.op]
    weight = edit.graph.tensors[name].detach()
    along = [-1 if axis == roles.out_axis else 1 for axis in range(weight.dim())]
    edit.set_tensor(name, (weight.double() * factor.reshape(along)).to(weight.dtype))
    old = layer.bias and edit.graph.tensors[str(layer.bias.target)].detach().double()
    moved = (((0.0 if old is None else old) - mean) * factor + (0.0 if shift is None else shift)).to(weight.dtype)
    if layer.bias is not None:
        edit.set_tensor(str(layer.bias.target), moved)
    else:
        assert roles.bias is not None
        bias = edit.add(f"{name.removesuffix('weight')}bias", moved, trainable=True)
        args = [*layer.args, *[None] * (roles.bias + 1 - len(layer.args))]
        args[roles.bias] = bias
        edit.set_args(layer, *args, **layer.kwargs)
    edit.replace(norm, layer)
