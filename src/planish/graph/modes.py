"""Training and evaluation from one graph.

The graph is the one that evaluation mode gives. Where training mode passes another argument (dropout, batch norm,
attention dropout) the node carries both values, and `Net.train()` flips them. Any other difference between the two
captures is refused with the line of the user's program that makes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from planish.errors import ModelError, PlanishError
from planish.graph.node import source_line
from planish.graph.ops import base_name

SWITCH = "planish_switch"  # node.meta: {argument name: (evaluation value, training value)}
_NAMED = ("get_attr", "placeholder")
COUNTER = "planish_counter"  # node.meta of a batch norm: dotted name of the buffer that counts its training batches

EVALUATION_ONLY = ModelError(
    "this graph was captured for evaluation only", hint="planish.capture(model, example_inputs, training=True)"
)


def merge_training(evaluation: fx.Graph, training: fx.Graph) -> None:
    """Record on the nodes of `evaluation` what `training` does differently.

    Raises:
        ModelError: The two graphs differ in more than the arguments of an operation.
    """
    anchors = {(n.op, str(n.target)): n for n in evaluation.nodes if n.op in _NAMED}
    twin: dict[fx.Node, fx.Node] = {}
    for node in training.nodes:
        if node.op in _NAMED:
            if (node.op, str(node.target)) not in anchors:
                raise _refusal(None, node)
            twin[node] = anchors[node.op, str(node.target)]
    theirs = iter([node for node in training.nodes if node.op not in _NAMED])
    counter = None
    for node in (node for node in evaluation.nodes if node.op not in _NAMED and not _is_layout(node)):
        other = next(theirs, None)
        while other is not None and (is_counter(other) or _is_layout(other)):
            twin[other] = twin[other.all_input_nodes[0]]
            counter = str(other.all_input_nodes[0].target) if is_counter(other) else counter
            other = next(theirs, None)
        if other is None or other.op != node.op or other.target != node.target:
            raise _refusal(node, other)
        if switch := _differences(node, other, twin):
            node.meta[SWITCH] = switch
        if counter and base_name(node.target) == "batch_norm":
            node.meta[COUNTER], counter = counter, None
        twin[other] = node


def _differences(node: fx.Node, other: fx.Node, twin: Mapping[fx.Node, fx.Node]) -> dict[str, tuple[Any, Any]]:
    """Arguments that differ, as (evaluation, training); refused if they are values of other nodes."""
    there = {name: fx.map_arg(value, twin.__getitem__) for name, value in named_arguments(other).items()}
    here = {name: fx.map_arg(value, _without_layout) for name, value in named_arguments(node).items()}
    switch = {name: (value, there.get(name)) for name, value in here.items() if value != there.get(name)}
    if here.keys() != there.keys() or any(_has_nodes(value) for value in switch.values()):
        raise _refusal(node, other)
    return switch


def _is_layout(node: fx.Node) -> bool:
    """Whether a node leaves every value as it is: a change of memory layout, or a conversion to the type it has."""
    if base_name(node.target) == "to" and len(node.all_input_nodes) == 1:
        here, there = node.meta.get("val"), node.all_input_nodes[0].meta.get("val")
        return isinstance(here, torch.Tensor) and isinstance(there, torch.Tensor) and here.dtype == there.dtype
    return node.target == torch.ops.aten.contiguous.default


def _without_layout(node: fx.Node) -> fx.Node:
    return _without_layout(node.all_input_nodes[0]) if _is_layout(node) else node


def named_arguments(node: fx.Node) -> dict[str, Any]:
    """All arguments of a call by name, defaults filled in; by position where the target has no schema."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {**{str(i): value for i, value in enumerate(node.args)}, **node.kwargs}
    named = {}
    for position, argument in enumerate(schema.arguments):
        given = not argument.kwarg_only and position < len(node.args)
        named[argument.name] = (
            node.kwargs[argument.name]
            if argument.name in node.kwargs
            else node.args[position]
            if given
            else argument.default_value
        )
    return named


def _set_argument(node: fx.Node, name: str, value: Any) -> None:
    schema = node.target._schema  # type: ignore[union-attr]  # switches stand on operators only
    position = next(i for i, argument in enumerate(schema.arguments) if argument.name == name)
    if not schema.arguments[position].kwarg_only and position < len(node.args):
        node.args = (*node.args[:position], value, *node.args[position + 1 :])
    else:
        node.kwargs = {**node.kwargs, name: value}


def is_counter(node: fx.Node) -> bool:
    """Whether a step only counts the training batches of a batch norm."""
    return (
        node.target == torch.ops.aten.add_.Tensor
        and str(node.all_input_nodes[0].target).endswith("num_batches_tracked")
        and not node.users
    )


def _has_nodes(value: Any) -> bool:
    found: list[fx.Node] = []
    fx.map_arg(value, found.append)
    return bool(found)


def _refusal(node: fx.Node | None, other: fx.Node | None) -> ModelError:
    here = other if other is not None and other.op == "call_function" else node
    line = source_line(here.meta.get("stack_trace") or "") if here is not None else ""
    return ModelError(
        "training and evaluation mode compute different things: "
        f"{'nothing' if node is None else base_name(node.target)} in evaluation, "
        f"{'nothing' if other is None else base_name(other.target)} in training",
        line,
        "make the model the same in both modes (dropout, batch norm and attention dropout are switched for you), "
        "or capture(..., training=False) to only evaluate it",
    )


def switch(graph: fx.Graph, training: bool) -> bool:
    """Put a graph into one of the two modes; False where both are the same."""
    switched = [node for node in graph.nodes if SWITCH in node.meta]
    for node in switched:
        for name, values in node.meta[SWITCH].items():
            _set_argument(node, name, values[training])
    return bool(switched)


class Net(fx.GraphModule):
    """A graph as an ordinary trainable module: the user's parameter names, and `train()`/`eval()` that switch."""

    def train(self, mode: bool = True) -> Net:
        """Switch to training (or evaluation) mode.

        Raises:
            ModelError: The graph was captured for evaluation only, or its two modes differ by more than arguments.
        """
        refusal = self.meta.get("training_refusal")
        if mode and isinstance(refusal, PlanishError):
            raise refusal
        super().train(mode)
        if switch(self.graph, mode):
            self.recompile()
        return self


def add_counters(graph: fx.Graph) -> None:
    """Let each batch norm count its batches, as `nn.BatchNorm` does: add 1 in training, 0 in evaluation."""
    for node in [node for node in graph.nodes if COUNTER in node.meta]:
        with graph.inserting_before(node):
            buffer = graph.create_node("get_attr", node.meta[COUNTER])
            count = graph.call_function(torch.ops.aten.add_.Tensor, (buffer, 0))
        count.meta = {SWITCH: {"other": (0, 1)}, "nn_module_stack": node.meta.get("nn_module_stack"), "val": None}
