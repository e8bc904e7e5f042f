"""Fake values: what shape and type every step gives, sizes symbolic where they may vary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from planish.graph.branches import COND, Bodies, bodies_of, operands
from planish.graph.shapes import size_text

if TYPE_CHECKING:
    from planish.graph.graph import Graph

Axes = Sequence[Mapping[str, str]]


def dynamic_axes(graph: Graph) -> list[dict[str, str]]:
    """Of each flattened input, the axes that may vary and what their sizes are called."""
    axes: list[dict[str, str]] = []
    for node in graph.inputs:
        shape = node.value.shape if isinstance(node.value, torch.Tensor) else ()
        named = {str(axis): size_text(size, graph.symbols) for axis, size in enumerate(shape)}
        axes.append({axis: size for axis, size in named.items() if isinstance(size, str)})
    return axes


def propagate(
    graph: fx.Graph, bodies: Bodies, tensors: Mapping[str, torch.Tensor], inputs: Sequence[Any], axes: Axes
) -> dict[str, str]:
    """Compute every node's fake value; return torch's symbol -> the user's name."""
    mode = FakeTensorMode(shape_env=ShapeEnv())
    first: dict[str, torch.SymInt] = {}
    values: list[Any] = []
    for value, named in zip(inputs, axes, strict=True):
        if not isinstance(value, torch.Tensor):
            values.append(value)
            continue
        kinds = [DimDynamic.DYNAMIC if str(axis) in named else DimDynamic.STATIC for axis in range(value.dim())]
        fake = mode.from_tensor(value, symbolic_context=StatelessSymbolicContext(dynamic_sizes=kinds))
        for axis, name in named.items():
            size = fake.shape[int(axis)]
            if name in first:
                torch._check(size == first[name])
            elif isinstance(size, torch.SymInt):
                first[name] = size
        values.append(fake)
    fakes = {name: mode.from_tensor(tensor, static_shapes=True) for name, tensor in tensors.items()}
    _run(graph, bodies, fakes, values, mode)
    # read last: torch replaces one symbol by another where it learns that two sizes are equal
    return {str(size.node.expr): name for name, size in first.items()}


def _run(
    graph: fx.Graph, bodies: Bodies, fakes: Mapping[str, torch.Tensor], inputs: Iterable[Any], mode: FakeTensorMode
) -> Any:
    """The fake values of a graph's results."""
    supply = iter(inputs)
    for node in graph.nodes:
        if node.op == "placeholder":
            node.meta["val"] = next(supply)
        elif node.op == "get_attr":
            node.meta["val"] = fakes.get(str(node.target))
        elif node.target is COND:
            given = fx.map_arg(operands(node), _value)
            results = [_run(body, bodies, fakes, given, mode) for body in bodies_of(node, bodies)]
            node.meta["val"] = results[0]
        elif node.op == "call_function":
            args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), _value)
            with torch.no_grad(), mode, enable_python_dispatcher():
                node.meta["val"] = node.target(*args, **kwargs)  # type: ignore[operator]  # on the allow-list
    return fx.map_arg(graph.output_node().args[0], _value)


def _value(node: fx.Node) -> Any:
    return node.meta["val"]
