"""One spelling for what users spell in many ways."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from planish.graph import Data, Editor, Graph, Node, Pass, Progress, Step

ALIASES = frozenset({"view", "reshape", "slice", "expand", "contiguous", "to", "alias", "lift_fresh_copy", "type_as"})
"""Operations that give back their input where neither shape, layout nor type changes."""
CHECKS = frozenset({"_assert_tensor_metadata"})


@dataclass(frozen=True)
class Canonicalize(Pass):
    """Products with a transposed weight become `linear`, a sum behind one becomes its bias, and what does nothing goes.

    No parameter is renamed or merged: queries, keys and values stay three layers, as they are in the user's model.

    Attributes:
        keep_training: Keep dropout, which does nothing in evaluation but matters in training.
    """

    keep_training: bool = True

    def plan(self, graph: Graph) -> list[Step]:
        """One step for each operation that changes or goes; none where all is canonical."""
        steps = [Step(node.path, node.name, "becomes linear") for node in graph.nodes if _product(node)]
        steps += [
            Step(node.path, node.name, "becomes the bias of a linear layer") for node in graph.nodes if _bias_of(node)
        ]
        return steps + [Step(node.path, node.name, "does nothing, goes") for node in graph.nodes if self._is_idle(node)]

    def apply(self, graph: Graph, data: Data | None, progress: Progress) -> Graph:
        """The canonical graph."""
        edit = graph.edit()
        for name in [node.name for node in graph.nodes]:
            node = edit.node(name)
            if node.op in CHECKS:
                edit.erase(node)
            elif self._is_idle(node):
                edit.replace(node, node.inputs[0])
                edit.erase(node)  # dropout counts as impure, and would survive as dead code
            elif (product := _product(node)) is not None:
                linear = edit.call(torch.ops.aten.linear.default, *product, before=node)
                edit.replace(node, linear)
            elif (sum_ := _bias_of(node)) is not None:
                _take_bias(edit, node, *sum_)
        return edit.done()

    def _is_idle(self, node: Node) -> bool:
        if node.op in CHECKS:
            return True
        if node.op == "dropout":
            return not self.keep_training or node.argument("p") == 0
        if node.op not in ALIASES or not node.inputs or not isinstance(node.inputs[0].value, torch.Tensor):
            return False
        source = node.inputs[0]
        same = node.shape == source.shape and node.dtype == source.dtype and node.value.device == source.value.device
        if node.op == "slice":
            same = same and node.argument("step") == 1
        return same and node.value.stride() == source.value.stride()


def _product(node: Node) -> tuple[Node, ...] | None:
    """The arguments of the linear layer that a product with a transposed weight is; None for any other operation."""
    if node.op in ("matmul", "mm") and len(node.args) == 2:
        x, weight, bias = *node.args, None
    elif node.op == "addmm" and not node.kwargs and len(node.args) == 3:
        bias, x, weight = node.args
        if bias.kind != "tensor" or len(bias.shape or ()) != 1:
            return None
    else:
        return None
    plain = _untransposed(weight)
    if plain is None or not isinstance(x, Node) or len(x.shape or ()) < 2:
        return None
    return (x, plain) if bias is None else (x, plain, bias)


def _untransposed(node: Node) -> Node | None:
    """The matrix among the model's tensors whose transpose the node is."""
    swap = {("t", ()), ("numpy_T", ()), ("transpose", (0, 1)), ("transpose", (1, 0)), ("transpose", (-1, -2))}
    swap |= {("transpose", (-2, -1)), ("permute", (1, 0))}
    if not isinstance(node, Node) or node.kind != "call" or not node.inputs or len(node.inputs[0].shape or ()) != 2:
        return None
    rest = node.args[1:] if node.op != "permute" else tuple(node.args[1])
    source = node.inputs[0]
    return source if source.kind == "tensor" and (node.op, tuple(rest)) in swap else None


def _bias_of(node: Node) -> tuple[Node, Node] | None:
    """The linear layer without bias and the vector that a sum adds to it; None for any other operation."""
    if node.op != "add" or len(node.args) != 2 or node.kwargs or not all(isinstance(term, Node) for term in node.args):
        return None
    for layer, vector in (node.args, node.args[::-1]):
        if (
            layer.op == "linear"
            and layer.bias is None
            and layer.users == (node,)
            and vector.kind == "tensor"
            and vector.shape == (layer.shape or (0,))[-1:]
        ):
            return layer, vector
    return None


def _take_bias(edit: Editor, node: Node, layer: Node, vector: Node) -> None:
    fresh = edit.call(torch.ops.aten.linear.default, *layer.args[:2], vector, before=node, path=layer.path or None)
    edit.replace(node, fresh)
