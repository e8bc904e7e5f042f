"""`Signature`: between a model's own arguments and results, and an engine's flat list of named tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from planish.errors import DataError
from planish.graph import Graph
from planish.graph.structure import dump_spec, load_spec, register_structures


@dataclass(frozen=True)
class Signature:
    """How a model is called and what it returns.

    Attributes:
        inputs: Name of each input, flattened; those that are no tensors, and that the graph has baked in, too.
        is_tensor: Whether each input is a tensor.
        sizes: Shape of each input, dynamic sizes by name; empty for what is no tensor.
        types: Type of each input ("int64"); empty for what is no tensor.
        outputs: Name of each tensor that is returned.
        results: Flat results: the number of an output, or a literal in a list of one.
        in_spec: Structure of `(args, kwargs)`, as text.
        out_spec: Structure of the result, as text.
    """

    inputs: tuple[str, ...]
    is_tensor: tuple[bool, ...]
    sizes: tuple[tuple[int | str, ...], ...]
    types: tuple[str, ...]
    outputs: tuple[str, ...]
    results: tuple[Any, ...]
    in_spec: str
    out_spec: str

    @classmethod
    def of(cls, graph: Graph) -> Signature:
        """The signature of a graph."""
        register_structures()
        flat, nodes, results = flat_results(graph), [], []
        for item in flat:
            if is_tensor(item):
                results.append(nodes.index(item) if item in nodes else len(nodes))
                nodes += [item] if item not in nodes else []
            else:
                results.append([item])
        return cls(
            tuple(node.name for node in graph.inputs),
            tuple(isinstance(node.value, torch.Tensor) for node in graph.inputs),
            tuple(node.shape or () for node in graph.inputs),
            tuple(str(node.dtype or "").removeprefix("torch.") for node in graph.inputs),
            tuple(_output_names(graph, flat, nodes)),
            tuple(results),
            dump_spec(graph.in_spec),
            dump_spec(graph.out_spec),
        )

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Signature:
        """The inverse of `dataclasses.asdict` after a round trip through JSON."""
        tuples = {
            k: tuple(map(tuple, v)) if k == "sizes" else tuple(v) for k, v in fields.items() if isinstance(v, list)
        }
        return cls(**{**fields, **tuples})

    @property
    def tensor_inputs(self) -> list[str]:
        """Names of the inputs that are tensors, in order."""
        return [name for name, kept in zip(self.inputs, self.is_tensor, strict=True) if kept]

    def flatten(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
        """The tensors of a call, in the order of `tensor_inputs`.

        Raises:
            DataError: The call has another structure, type or rank than the model was captured with.
        """
        plain = self._takes_tensors and not kwargs and len(args) == len(self.inputs)
        if plain and all(isinstance(arg, torch.Tensor) for arg in args):  # looking into structures takes time
            return [self._checked(place, tensor) for place, tensor in enumerate(args)]
        leaves, given = pytree.tree_flatten((tuple(args), dict(kwargs)))
        if given != load_spec(self.in_spec, "the artifact"):
            named = dict(zip(self.inputs, args, strict=False)) | dict(kwargs)
            if len(args) + len(kwargs) != len(self.inputs) or named.keys() != set(self.inputs):
                raise DataError(
                    f"the call has {len(leaves)} inputs in another structure than the model was captured with",
                    ", ".join(self.inputs),
                    "call it as in example_inputs",
                )
            leaves = [named[name] for name in self.inputs]
        return [
            self._checked(place, torch.as_tensor(leaf))
            for place, (leaf, kept) in enumerate(zip(leaves, self.is_tensor, strict=True))
            if kept
        ]

    @cached_property
    def _takes_tensors(self) -> bool:
        """Whether a call is nothing but tensors, by position."""
        flat = pytree.tree_structure((tuple(range(len(self.inputs))), {}))
        return all(self.is_tensor) and load_spec(self.in_spec, "the artifact") == flat

    @cached_property
    def _returns_a_tensor(self) -> bool:
        return self.results == (0,) and load_spec(self.out_spec, "the artifact").is_leaf()

    @cached_property
    def _dtypes(self) -> list[torch.dtype | None]:
        return [getattr(torch, kind) if kind else None for kind in self.types]

    def _checked(self, place: int, tensor: torch.Tensor) -> torch.Tensor:
        size, have = self.sizes[place], tensor.shape
        if tensor.dtype is not self._dtypes[place] or (have != size and not _fits(have, size)):
            name = self.inputs[place]
            raise DataError(
                f"{name} is {tuple(have)} {str(tensor.dtype).removeprefix('torch.')}",
                name,
                f"give it {self.types[place]} of shape ({', '.join(map(str, size))})",
            )
        return tensor.detach() if tensor.requires_grad else tensor

    def unflatten(self, tensors: Sequence[torch.Tensor]) -> Any:
        """The model's own result structure."""
        if self._returns_a_tensor:
            return tensors[0]
        leaves = [item[0] if isinstance(item, list) else tensors[item] for item in self.results]
        return pytree.tree_unflatten(leaves, load_spec(self.out_spec, "the artifact"))


def _fits(shape: Sequence[int], size: Sequence[int | str]) -> bool:
    return len(shape) == len(size) and all(
        isinstance(wanted, str) or have == wanted for have, wanted in zip(shape, size, strict=True)
    )


def is_tensor(item: Any) -> bool:
    """Whether a flat result is a tensor that the graph computes."""
    return isinstance(item, fx.Node) and isinstance(item.meta.get("val"), torch.Tensor)


def flat_results(graph: Graph) -> list[Any]:
    """What a graph returns, flattened: nodes and literals."""
    flat = graph.fx.output_node().args[0]
    return list(flat) if isinstance(flat, list | tuple) else [flat]


def output_nodes(graph: Graph) -> list[fx.Node]:
    """The tensors that a graph returns, each once, in order."""
    return list(dict.fromkeys(item for item in flat_results(graph) if is_tensor(item)))


def _output_names(graph: Graph, flat: list[Any], nodes: list[fx.Node]) -> list[str]:
    """The place of each output in the structure ("last_hidden_state"); "output" where it is alone."""
    if len(flat) == 1:
        return ["output"] * len(nodes)
    paths = ["_".join(path) for path in _paths(graph.out_spec)]
    taken = {node.name for node in graph.inputs}
    names = [paths[flat.index(node)] for node in nodes]
    return [f"output_{name}" if name[:1].isdigit() or name in taken else name for name in names]


def _paths(spec: pytree.TreeSpec) -> list[list[str]]:
    """The keys that lead to each leaf: names where the structure has names, else numbers."""
    if spec.is_leaf():
        return [[]]
    children = spec.children()
    context = spec.context[-1] if isinstance(spec.context, tuple) and spec.context else spec.context
    named = (
        isinstance(context, list | tuple) and len(context) == len(children) and all(isinstance(k, str) for k in context)
    )
    keys = list(context) if named else [str(place) for place in range(len(children))]
    return [[key, *path] for key, child in zip(keys, children, strict=True) for path in _paths(child)]
