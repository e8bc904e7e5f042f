"""`capture`: a PyTorch model becomes a `Graph`.

Non-strict `torch.export` before decomposition, so that linear, convolution, layer norm, attention and LSTM stay one
operation each. What torch can export is a legal graph.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from planish.errors import ModelError, PlanishError
from planish.frontends.diagnose import explain
from planish.frontends.inline import inline_regions
from planish.graph.graph import EVALUATION_ONLY, Graph
from planish.graph.modes import merge_training
from planish.graph.node import source_line
from planish.graph.operators import is_allowed, is_guard
from planish.graph.ops import base_name
from planish.graph.structure import register_structures

Call = tuple[tuple[Any, ...], dict[str, Any]]


def capture(
    model: nn.Module,
    example_inputs: Any,
    dynamic: Mapping[str, Any] | None = None,
    training: bool = True,
) -> Graph:
    """Capture what a model computes.

    Args:
        model: Any module that torch can export. It is not changed.
        example_inputs: A tuple of positional arguments, a dict of keyword arguments, or `(args, kwargs)`.
        dynamic: Sizes that may vary, `{"input_ids": {0: "batch", 1: "tokens"}}`; for an input that is a structure (a
            key-value cache), the axes hold for every tensor in it. An example of size 1 along such an axis is repeated.
        training: Capture training mode too, so that `graph.module().train()` works.

    Raises:
        ModelError: The model refuses the inputs, or does something that cannot be exported; says on which line.
    """
    register_structures()
    call = _as_call(example_inputs)
    names = _input_names(model, call)
    dynamic = dict(dynamic or {})
    if unknown := dynamic.keys() - set(names):
        raise ModelError(f"dynamic names no input {', '.join(sorted(unknown))!r}", hint=f"inputs: {', '.join(names)}")
    call = _without_ones(names, call, dynamic)
    _try_out(model, call)
    graph = _export(model, call, names, dynamic, training=False)
    if training:
        graph.training_refusal = _add_training(graph, model, call, names, dynamic)
    return graph.verify()


def _as_call(example_inputs: Any) -> Call:
    """`(args, kwargs)`, whichever of the three ways they were given in."""
    match example_inputs:
        case (tuple() as args, dict() as kwargs):
            return args, kwargs
        case dict():
            return (), dict(example_inputs)
        case tuple() | list():
            return tuple(example_inputs), {}
        case torch.Tensor():
            return (example_inputs,), {}
    raise ModelError(
        f"example inputs are a tuple, a dict, or (args, kwargs), not {type(example_inputs).__name__}",
        hint="capture(model, (x,)) or capture(model, {'input_ids': ids})",
    )


def _input_names(model: nn.Module, call: Call) -> list[str]:
    """The parameter name in `forward` of each argument, in the order of the call."""
    signature = inspect.signature(model.forward)
    try:
        bound = signature.bind(*call[0], **call[1])
    except TypeError as error:
        raise ModelError(
            f"the example inputs do not fit forward{signature}: {error}",
            type(model).__name__,
            "give every required input",
        ) from error
    names: list[str] = []
    for name in bound.arguments:
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            continue
        names += (
            [f"{name}_{i}" for i in range(len(bound.arguments[name]))]
            if kind is inspect.Parameter.VAR_POSITIONAL
            else [name]
        )
    positional = names[: len(call[0])]
    return [*positional, *call[1]]


def _values(call: Call) -> list[Any]:
    return [*call[0], *call[1].values()]


def _axes(names: list[str], call: Call, dynamic: Mapping[str, Any]) -> list[tuple[Any, dict[int, str]]]:
    """Each tensor of the call with its dynamic axes."""
    pairs: list[tuple[Any, dict[int, str]]] = []
    for name, value in zip(names, _values(call), strict=True):
        axes = {int(axis): str(size) for axis, size in dynamic.get(name, {}).items()}
        pairs += [(leaf, axes) for leaf in pytree.tree_leaves(value)]
    return pairs


def _without_ones(names: list[str], call: Call, dynamic: Mapping[str, Any]) -> Call:
    """The call with own copies of all tensors, and every dynamic axis of size 1 repeated (torch would bake a 1 in)."""
    leaves, spec = pytree.tree_flatten(call)
    fresh: list[Any] = []
    for (leaf, axes), _ in zip(_axes(names, call, dynamic), leaves, strict=True):
        value = leaf
        if isinstance(value, torch.Tensor):
            value = value.detach().clone()
            for axis in axes:
                if not -value.dim() <= axis < value.dim():
                    raise ModelError(
                        f"dynamic axis {axis} of an input with shape {tuple(value.shape)}", hint=f"names: {axes}"
                    )
                if value.shape[axis] == 1:
                    value = torch.cat([value, value], dim=axis)
        fresh.append(value)
    return pytree.tree_unflatten(fresh, spec)


def _copied(call: Call) -> Call:
    """The same call with tensors and containers of its own: a model may write into a cache it is given."""
    return pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, call)


def _try_out(model: nn.Module, call: Call) -> None:
    args, kwargs = _copied(call)
    try:
        with torch.no_grad(), _mode(model, training=False):
            model(*args, **kwargs)
    except Exception as error:  # whatever the user's code raises is the user's to read
        shapes = [tuple(leaf.shape) for leaf in pytree.tree_leaves(call) if isinstance(leaf, torch.Tensor)]
        raise explain(error, model, f"the model fails on the example inputs (shapes {shapes})") from error


@contextmanager
def _mode(model: nn.Module, training: bool) -> Iterator[None]:
    """The whole model in one mode; afterwards each module is in the mode that it was in."""
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode


def _export(model: nn.Module, call: Call, names: list[str], dynamic: Mapping[str, Any], training: bool) -> Graph:
    args, kwargs = _copied(call)
    shapes = torch.export.ShapesCollection()
    for leaf, axes in _axes(names, (args, kwargs), dynamic):
        if isinstance(leaf, torch.Tensor) and axes:
            shapes[leaf] = {axis % leaf.dim(): torch.export.Dim.DYNAMIC for axis in axes}
    spec = shapes.dynamic_shapes(model, args, kwargs) if dynamic else None
    try:
        with _mode(model, training):
            program = torch.export.export(model, args, kwargs, dynamic_shapes=spec, strict=False)
    except Exception as error:  # torch raises many kinds
        raise explain(error, model, "the model cannot be exported") from error
    exported = program.module(check_guards=False)
    inline_regions(exported)
    _drop_dead(exported.graph)
    _refuse_foreign(exported.graph)
    return _to_graph(exported, model, call, _symbols(exported.graph, names, (args, kwargs), dynamic), dynamic)


def _add_training(
    graph: Graph, model: nn.Module, call: Call, names: list[str], dynamic: Mapping[str, Any]
) -> PlanishError | None:
    try:
        merge_training(graph.fx, _export(model, call, names, dynamic, training=True).fx)
    except PlanishError as error:
        return error
    return None


def _symbols(graph: fx.Graph, names: list[str], call: Call, dynamic: Mapping[str, Any]) -> dict[str, str]:
    """torch's symbol -> the user's name, read off the inputs."""
    symbols: dict[str, str] = {}
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    for node, (_, axes) in zip(inputs, _axes(names, call, dynamic), strict=True):
        value = node.meta.get("val")
        for axis, name in axes.items():
            size = value.shape[axis] if isinstance(value, torch.Tensor) else 0
            if isinstance(size, torch.SymInt) and size.node.expr.is_symbol:
                symbols.setdefault(str(size.node.expr), name)
    return symbols


def _to_graph(
    exported: fx.GraphModule, model: nn.Module, call: Call, symbols: dict[str, str], dynamic: Mapping[str, Any]
) -> Graph:
    tensors: dict[str, torch.Tensor] = {}
    branches: dict[str, fx.GraphModule] = {}
    for node in exported.graph.nodes:
        if node.op == "get_attr":
            value = _attribute(exported, str(node.target))
            (branches if isinstance(value, fx.GraphModule) else tensors)[str(node.target)] = value  # type: ignore[assignment]
    _complete_paths(exported.graph)
    # the model's own tensors, so that a capture costs no second copy of the weights
    own = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}
    tensors = {name: own.get(name, value) for name, value in tensors.items()}
    return Graph(
        fx=exported.graph,
        tensors=tensors,
        example=call,
        buffers=frozenset(tensors.keys() & model.state_dict().keys() - dict(model.named_parameters()).keys()),
        branches=branches,
        dynamic=dynamic,
        symbols=symbols,
        training_refusal=EVALUATION_ONLY,
    )


def _drop_dead(graph: fx.Graph) -> None:
    """Remove what nobody reads, and run-time checks of dtypes and sizes: they compute nothing and differ between modes.

    Parameters that nobody reads stay: they are part of the user's model.
    """
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and not node.users and (is_guard(node.target) or not node.is_impure()):
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


def _attribute(root: nn.Module, name: str) -> Any:
    value: Any = root
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _complete_paths(graph: fx.Graph) -> None:
    """Give size computations, which torch inserts without a path, that of their first user."""
    for node in reversed(list(graph.nodes)):
        stack = node.meta.get("nn_module_stack")
        if node.op == "call_function" and (not stack or any("_empty_nn_module_stack" in key for key in stack)):
            users = (user.meta.get("nn_module_stack") for user in node.users if user.op == "call_function")
            node.meta["nn_module_stack"] = dict(
                next((found for found in users if found), None) or {"": ("", base_name(node.target))}
            )
