"""What `torch.export` gives, made the attributes of a `Graph`.

Non-strict, before decomposition, so that linear, convolution, layer norm, attention and LSTM stay one operation each.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from planish.errors import ModelError, PlanishError
from planish.graph.adopt import adopt_branches, attribute
from planish.graph.branches import Bodies, assembled
from planish.graph.diagnose import explain
from planish.graph.modes import EVALUATION_ONLY, is_counter, merge_training
from planish.graph.node import source_line
from planish.graph.operators import is_allowed, is_guard
from planish.graph.ops import base_name

Call = tuple[tuple[Any, ...], dict[str, Any]]
_HARMLESS = (
    # an LSTM keeps a list of its weights beside them, which torch sees change when it puts its own in their place
    r"The tensor attributes?( self\.\S*_flat_weights\[\d+\],?)+ (was|were) assigned during export",
    # torch looks at the gradients of what it passes to the branches of a torch.cond
    r"The \.grad attribute of a Tensor that is not a leaf Tensor is being accessed",
)


def export(
    model: nn.Module, call: Call, names: list[str], dynamic: Mapping[str, Any], training: bool
) -> dict[str, Any]:
    """The attributes of the `Graph` of what a model computes.

    Args:
        model: Any module that torch can export. It is not changed.
        call: `(args, kwargs)`, no dynamic axis of size 1.
        names: The name of each argument of the call, in its order.
        dynamic: `{name: {axis: size name}}`.
        training: Whether to export training mode too.

    Raises:
        ModelError: The model does something that cannot be exported; says on which line.
    """
    exported, bodies = _export(model, call, names, dynamic, training=False)
    refusal: PlanishError | None = EVALUATION_ONLY
    if training:
        try:
            _merge(exported.graph, bodies, *_export(model, call, names, dynamic, training=True))
            refusal = None
        except PlanishError as error:
            refusal = error
    symbols = _symbols(exported.graph, names, call, dynamic)
    return {
        **_attributes(exported, model),
        "branches": assembled({name: body.graph for name, body in bodies.items()}, fx.GraphModule),
        "example": call,
        "dynamic": dynamic,
        "symbols": symbols,
        "training_refusal": refusal,
    }


def _values(call: Call) -> list[Any]:
    return [*call[0], *call[1].values()]


def axes_of(names: list[str], call: Call, dynamic: Mapping[str, Any]) -> list[tuple[Any, dict[int, str]]]:
    """Each tensor of the call with its dynamic axes."""
    pairs: list[tuple[Any, dict[int, str]]] = []
    for name, value in zip(names, _values(call), strict=True):
        axes = {int(axis): str(size) for axis, size in dynamic.get(name, {}).items()}
        pairs += [(leaf, axes) for leaf in pytree.tree_leaves(value)]
    return pairs


def copied(call: Call) -> Call:
    """The same call with tensors and containers of its own: a model may write into a cache it is given."""
    return pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, call)


@contextmanager
def mode_of(model: nn.Module, training: bool) -> Iterator[None]:
    """The whole model in one mode; afterwards each module is in the mode that it was in."""
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode


def _export(
    model: nn.Module, call: Call, names: list[str], dynamic: Mapping[str, Any], training: bool
) -> tuple[fx.GraphModule, dict[str, fx.GraphModule]]:
    """What torch exports in one mode, and the bodies of its branches."""
    args, kwargs = copied(call)
    shapes = torch.export.ShapesCollection()
    for leaf, axes in axes_of(names, (args, kwargs), dynamic):
        if isinstance(leaf, torch.Tensor) and axes:
            shapes[leaf] = {axis % leaf.dim(): torch.export.Dim.DYNAMIC for axis in axes}
    spec = shapes.dynamic_shapes(model, args, kwargs) if dynamic else None
    try:
        with mode_of(model, training), warnings.catch_warnings():
            for message in _HARMLESS:
                warnings.filterwarnings("ignore", message)
            program = torch.export.export(model, args, kwargs, dynamic_shapes=spec, strict=False)
    except Exception as error:  # torch raises many kinds
        raise explain(error, model, "the model cannot be exported") from error
    exported = program.module(check_guards=False)
    bodies = adopt_branches(exported, model)
    for graph in (*(body.graph for body in bodies.values()), exported.graph):
        _drop_dead(graph)
        _refuse_foreign(graph)
    _complete_paths(exported.graph)
    return exported, bodies


def _merge(
    evaluation: fx.Graph, bodies: Bodies, training: fx.GraphModule, training_bodies: dict[str, fx.GraphModule]
) -> None:
    merge_training(evaluation, training.graph)
    for name, body in bodies.items():  # the graphs name the same ones, or the merge has refused
        merge_training(body.graph, training_bodies[name].graph)


def _symbols(graph: fx.Graph, names: list[str], call: Call, dynamic: Mapping[str, Any]) -> dict[str, str]:
    """torch's symbol -> the user's name, read off the inputs."""
    symbols: dict[str, str] = {}
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    for node, (_, axes) in zip(inputs, axes_of(names, call, dynamic), strict=True):
        value = node.meta.get("val")
        for axis, name in axes.items():
            size = value.shape[axis] if isinstance(value, torch.Tensor) else 0
            if isinstance(size, torch.SymInt) and size.node.expr.is_symbol:
                symbols.setdefault(str(size.node.expr), name)
    return symbols


def _attributes(exported: fx.GraphModule, model: nn.Module) -> dict[str, Any]:
    named = (
        (str(node.target), attribute(exported, str(node.target))) for node in exported.graph.find_nodes(op="get_attr")
    )
    tensors = {name: value for name, value in named if isinstance(value, torch.Tensor)}
    # the model's own tensors, so that a capture costs no second copy of the weights
    parameters = dict(model.named_parameters(remove_duplicate=False))
    own = {**parameters, **dict(model.named_buffers(remove_duplicate=False))}
    tensors = {name: own.get(name, value) for name, value in tensors.items()}
    buffers = frozenset(tensors.keys() & model.state_dict().keys() - parameters.keys())
    return {"fx": exported.graph, "tensors": tensors, "buffers": buffers}


def _drop_dead(graph: fx.Graph) -> None:
    """Remove what nobody reads or computes nothing: checks of dtypes and sizes, a count of batches that adds 0.

    Parameters that nobody reads stay: they are part of the user's model.
    """
    for node in reversed(list(graph.nodes)):
        if (
            node.op == "call_function"
            and not node.users
            and (is_guard(node.target) or not node.is_impure() or (is_counter(node) and node.args[1] == 0))
        ):
            graph.erase_node(node)


def _refuse_foreign(graph: fx.Graph) -> None:
    for node in graph.nodes:
        if node.op == "call_function" and not is_allowed(node.target):
            experts = "set model.config._experts_implementation = 'batched_mm' before capture"
            raise ModelError(
                f"the model calls {node.target}, which is no operation of PyTorch's own",
                source_line(node.meta.get("stack_trace") or ""),
                experts if "grouped_mm" in str(node.target) else "write that part with torch operations",
            )


def _complete_paths(graph: fx.Graph) -> None:
    """Give size computations, which torch inserts without a path, that of their first user."""
    for node in reversed(list(graph.nodes)):
        stack = node.meta.get("nn_module_stack")
        if node.op == "call_function" and (not stack or any("_empty_nn_module_stack" in key for key in stack)):
            users = (user.meta.get("nn_module_stack") for user in node.users if user.op == "call_function")
            node.meta["nn_module_stack"] = dict(
                next((found for found in users if found), None) or {"": ("", base_name(node.target))}
            )
