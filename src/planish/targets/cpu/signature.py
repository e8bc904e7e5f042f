"""Between a model's own arguments and an engine's flat list of named tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import _pytree as pytree

from planish.errors import DataError
from planish.graph import Graph


def input_names(graph: Graph) -> list[str]:
    """Names of the tensor inputs, flattened, in order."""
    return [node.name for node in graph.inputs if isinstance(node.value, torch.Tensor)]


def output_names(graph: Graph) -> list[str]:
    """A name for each tensor that the model returns: its place in the output structure, "output" where it is alone."""
    flat = graph.fx.output_node().args[0]
    flat = list(flat) if isinstance(flat, list | tuple) else [flat]
    paths = _paths(graph, len(flat))
    kept = [
        path
        for path, node in zip(paths, flat, strict=True)
        if isinstance(node, torch.fx.Node) and isinstance(node.meta.get("val"), torch.Tensor)
    ]
    return ["output"] if len(kept) == 1 and not kept[0] else [path or f"output_{i}" for i, path in enumerate(kept)]


def _paths(graph: Graph, count: int) -> list[str]:
    try:
        tree = pytree.tree_unflatten(list(range(count)), graph.out_spec)
        keyed = pytree.tree_flatten_with_path(tree)[0]
    except (ValueError, TypeError, AttributeError):  # a structure that only holds tensors
        return [f"output_{i}" for i in range(count)]
    names = ["_".join(str(_key(step)) for step in path) for path, _ in keyed]
    return [name if not name or not name[0].isdigit() else f"output_{name}" for name in names]


def _key(step: Any) -> Any:
    return next(getattr(step, field) for field in ("key", "idx", "name") if hasattr(step, field))


def flatten_inputs(graph: Graph, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """The tensors of a call, in the order of `input_names`.

    Raises:
        DataError: The call has another structure than the example inputs.
    """
    leaves, spec = pytree.tree_flatten((args, kwargs))
    if len(leaves) != len(graph.inputs) or spec != graph.in_spec:
        ordered = _reordered(graph, args, kwargs)
        if ordered is None:
            raise DataError(
                f"the call has {len(leaves)} inputs in another structure than the model was captured with",
                ", ".join(input_names(graph)),
                "call it as in example_inputs",
            )
        leaves = ordered
    pairs = zip(graph.inputs, leaves, strict=True)
    return [torch.as_tensor(leaf) for node, leaf in pairs if isinstance(node.value, torch.Tensor)]


def _reordered(graph: Graph, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any] | None:
    """Leaves of a call that names its arguments where the capture did not, or the other way round."""
    names = [node.name for node in graph.inputs]
    own_args, own_kwargs = graph.example
    flat = len(pytree.tree_leaves(graph.example)) == len(own_args) + len(own_kwargs) == len(names)
    given = dict(zip(names, args, strict=False)) | kwargs
    return [given[name] for name in names] if flat and given.keys() == set(names) else None
