"""PyTorch's own compiler. It computes in float32 on rounded numbers: nothing runs in integers here.

Its artifact is the graph itself, compiled again where it is loaded: a compiled library would be code from a file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from planish.errors import EngineError
from planish.formats import Format
from planish.formats.integer import Int
from planish.graph import Graph, Node
from planish.targets.base import Unsupported
from planish.targets.cpu.engine import Options, shares

_GRAPH = "model.planish"


class Inductor:
    """The engine."""

    has_exact = False

    def unsupported(self, graph: Graph) -> list[Unsupported]:
        """Casts that it would run as calls into Python, one element type at a time."""
        known = {node.name for node in graph.nodes if node.op == "cast" and _is_folded(node)}
        return [
            Unsupported(node.path, "cast", f"Inductor has no kernel for {node.format}")
            for node in graph.nodes
            if node.op == "cast" and node.name not in known and not _is_static(node.format)  # type: ignore[arg-type]
        ]

    def compile(self, graph: Graph, options: Options) -> InductorModel:
        """Compile a graph; the first call of each shape takes seconds."""
        return InductorModel(graph, options)

    def load(self, files: Mapping[str, bytes], names: Sequence[str], options: Options) -> InductorModel:
        """Compile a saved graph."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / _GRAPH
            file.write_bytes(files[_GRAPH])
            return InductorModel(Graph.load(file), options)


def _is_static(form: Format) -> bool:
    element = form.element
    plain = isinstance(element, Int) and element.bits == 8 and not element.frac and not element.narrow
    return plain and not form.is_dynamic and (form.block is None or form.block.is_tensor) and form.scale is not None


def _is_folded(node: Node) -> bool:
    """Whether a cast depends on tensors of the graph only."""
    return all(source.kind == "tensor" or (source.kind == "call" and _is_folded(source)) for source in node.inputs)


def _expanded(graph: Graph) -> fx.GraphModule:
    """The graph as a module whose weights are rounded once, here; activations are rounded as it runs."""
    edit = graph.edit()
    for node in graph.nodes:
        if node.op != "cast":
            continue
        mine = edit.node(node.name)
        if _is_folded(node):
            source, parameters = node.args[0].tensor, [p.tensor for p in node.args[1]]
            if source is None or node.format is None:
                continue
            rounded = node.format.cast(source.detach(), parameters or None)
            edit.replace(mine, edit.add(f"{node.name}__rounded", rounded))
    return edit.done()._runnable


class InductorModel:
    """A compiled module."""

    def __init__(self, graph: Graph, options: Options) -> None:
        self._graph, self._options = graph, options
        with tempfile.TemporaryDirectory() as folder:
            graph.save(file := Path(folder) / _GRAPH)
            self.files = {_GRAPH: file.read_bytes()}
        self._tensors = [isinstance(node.value, Tensor) for node in graph.inputs]
        self._literals = [
            None if is_tensor else node.value for node, is_tensor in zip(graph.inputs, self._tensors, strict=True)
        ]
        flat = _flat(_expanded(graph))
        self._run: Any = torch.compile(flat, dynamic=None, options={"freezing": True})

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Run once; tensors in the order of the signature."""
        given = iter(inputs)
        leaves = [
            next(given) if is_tensor else value for is_tensor, value in zip(self._tensors, self._literals, strict=True)
        ]
        before = torch.get_num_threads()
        torch.set_num_threads(self._options.threads)
        try:
            with torch.no_grad():
                results = self._run(*leaves)
        except Exception as error:  # torch raises many kinds
            raise EngineError(f"Inductor fails: {str(error).splitlines()[0]}", "engine 'inductor'") from error
        finally:
            torch.set_num_threads(before)
        return [result for result in results if isinstance(result, Tensor)]

    def executed_precisions(self, inputs: Sequence[Tensor]) -> dict[str, float]:
        """Always float, by construction; Inductor reports no precisions of its own."""
        return shares({"f32": 1.0})


def _flat(module: fx.GraphModule) -> fx.GraphModule:
    """The module with flat inputs and a flat list of results."""
    graph = fx.Graph()
    places: dict[fx.Node, fx.Node] = {}
    for node in module.graph.nodes:
        if node.op == "output":
            results = node.args[0] if isinstance(node.args[0], list | tuple) else [node.args[0]]
            unique = list(dict.fromkeys(item for item in results if isinstance(item, fx.Node)))
            graph.output([places[item] for item in unique])
        else:
            places[node] = graph.node_copy(node, places.__getitem__)
    return fx.GraphModule(module, graph)
