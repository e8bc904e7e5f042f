"""A graph on another device or in another floating type, with the devices and types that the export baked in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.fx.node import map_aggregate
from torch.utils import _pytree as pytree

from planish.errors import GraphError, OptionError
from planish.graph.branches import copied, steps_of
from planish.graph.copying import copy_graph
from planish.graph.propagate import dynamic_axes, propagate

if TYPE_CHECKING:
    from planish.graph.graph import Graph


class Converter:
    """What becomes of tensors and of arguments."""

    def __init__(self, graph: Graph, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
        if dtype is not None and not dtype.is_floating_point:
            raise OptionError(f"a graph computes in floating point, not in {dtype}", "dtype", "torch.bfloat16")
        self._graph, self._dtype = graph, dtype
        self._device = None if device is None else torch.device(device)
        parts = {id(node.tensor) for cast in graph.nodes if cast.op == "cast" for node in cast.args[1]}
        self._kept = parts  # rounding a scale would change the format's numbers
        leaves = [leaf for leaf in pytree.tree_leaves(graph.example) if isinstance(leaf, torch.Tensor)]
        tensors = [tensor for tensor in graph.tensors.values() if id(tensor) not in parts]
        self._from = {tensor.dtype for tensor in (*tensors, *leaves) if tensor.is_floating_point()} if dtype else set()
        self._done: dict[int, torch.Tensor] = {}

    def graph(self) -> Graph:
        """The converted graph."""
        graph = self._graph
        new, bodies = copy_graph(graph.fx), copied(graph.branches, fx.GraphModule)
        for node in steps_of(new, bodies):
            node.args, node.kwargs = map_aggregate((node.args, dict(node.kwargs)), self._argument)
            self._name_type(node)
        for body in bodies.values():
            body.recompile()
        tensors = {name: self._tensor(tensor) for name, tensor in graph.tensors.items()}
        example = pytree.tree_map_only(torch.Tensor, self._tensor, graph.example)
        try:
            symbols = propagate(new, bodies, tensors, pytree.tree_leaves(example), dynamic_axes(graph))
        except (RuntimeError, TypeError) as error:
            first = str(error).partition("\n")[0]
            raise GraphError(f"the graph does not compute in {self._dtype} on {self._device}: {first}") from error
        return graph.replace(fx=new, branches=bodies, tensors=tensors, example=example, symbols=symbols).verify()

    def _tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in self._done:
            changes = tensor.dtype in self._from and id(tensor) not in self._kept
            moved = tensor.detach().to(device=self._device, dtype=self._dtype if changes else None)
            parameter = isinstance(tensor, nn.Parameter)
            self._done[id(tensor)] = nn.Parameter(moved, tensor.requires_grad) if parameter else moved
        return self._done[id(tensor)]

    def _argument(self, value: Any) -> Any:
        if isinstance(value, torch.device):
            return self._device or value
        if isinstance(value, torch.dtype) and value in self._from:
            return self._dtype
        if isinstance(value, float) and self._dtype is not None:  # the most negative number, as masks have it
            for old in map(torch.finfo, self._from):
                if abs(value) == old.max:
                    return torch.finfo(self._dtype).max * (1 if value > 0 else -1)
        return value

    def _name_type(self, node: fx.Node) -> None:
        """Give the type to what makes a tensor of torch's default one."""
        schema, value = getattr(node.target, "_schema", None), node.meta.get("val")
        takes = schema is not None and any(
            argument.name == "dtype" and argument.kwarg_only for argument in schema.arguments
        )
        makes = isinstance(value, torch.Tensor) and value.dtype in self._from
        read = any(isinstance(source.meta.get("val"), torch.Tensor) for source in node.all_input_nodes)
        if takes and makes and not read and node.kwargs.get("dtype") is None:
            node.kwargs = {**node.kwargs, "dtype": self._dtype}
