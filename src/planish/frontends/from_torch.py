"""`capture`: a PyTorch model becomes a `Graph`. What torch can export is a legal graph."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from planish.errors import ModelError
from planish.graph import Graph
from planish.graph.diagnose import explain
from planish.graph.export import Call, axes_of, copied, export, mode_of
from planish.graph.structure import register_structures


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
    return Graph(**export(model, call, names, dynamic, training)).verify()


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


def _without_ones(names: list[str], call: Call, dynamic: Mapping[str, Any]) -> Call:
    """The call with own copies of all tensors, and every dynamic axis of size 1 repeated (torch would bake a 1 in)."""
    leaves, spec = pytree.tree_flatten(call)
    fresh: list[Any] = []
    for (leaf, axes), _ in zip(axes_of(names, call, dynamic), leaves, strict=True):
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


def _try_out(model: nn.Module, call: Call) -> None:
    args, kwargs = copied(call)
    try:
        with torch.no_grad(), mode_of(model, training=False):
            model(*args, **kwargs)
    except Exception as error:  # whatever the user's code raises is the user's to read
        shapes = [tuple(leaf.shape) for leaf in pytree.tree_leaves(call) if isinstance(leaf, torch.Tensor)]
        raise explain(error, model, f"the model fails on the example inputs (shapes {shapes})") from error
