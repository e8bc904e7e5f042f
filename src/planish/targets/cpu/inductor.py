"""PyTorch's own compiler. Static 8-bit layers are written as its own integer operators, which it hands to oneDNN.

Its artifact is the graph itself, compiled again where it is loaded: a compiled library would be code from a file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed
from torch import Tensor, fx
from torch._inductor import config as inductor
from torch.autograd import profiler

from planish.errors import EngineError
from planish.formats import Format
from planish.formats.integer import Int
from planish.graph import Graph, Node
from planish.graph.evaluate import fold
from planish.targets.base import Unsupported
from planish.targets.cpu.engine import Options, shares

_GRAPH = "model.planish"
_QUANTIZED = torch.ops.quantized_decomposed  # registered by the import above
_MULTIPLIES = frozenset({"linear", "conv2d"})
_KERNELS = frozenset(f"onednn::{op}_pointwise" for op in ("qlinear", "qconv", "qconv2d"))


class Inductor:
    """The engine."""

    has_exact = has_bfloat16 = False

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


def _is_integer(node: Node) -> bool:
    """Whether a cast is of a weight that oneDNN multiplies in integers: signed, one scale a channel, static inputs."""
    form = node.format
    if node.fx.graph is not node.graph.fx:  # in a branch, which Inductor compiles by itself
        return False
    if form is None or not isinstance(form.element, Int) or form.is_affine or form.scale is None or form.scale.scale:
        return False
    plain = form.element.signed and form.element.bits <= 8 and not form.element.frac
    readers = all(
        user.op in _MULTIPLIES
        and user.weight == node
        and user.input is not None
        and user.input.op == "cast"
        and not _is_folded(user.input)
        for user in node.users
    )
    shape = tuple(node.value.shape)
    return plain and readers and tuple(form.scale_shape(shape)) == (*shape[:1], *(1 for _ in shape[1:]))


def _expanded(graph: Graph) -> fx.GraphModule:
    """The graph as a module whose weights are rounded once, here, but for those that are multiplied in integers."""
    edit = graph.edit()
    for node in graph.nodes:
        if node.op != "cast" or not _is_folded(node) or _is_integer(node):
            continue
        source, parameters = node.args[0].tensor, [p.tensor for p in node.args[1]]
        if source is None or node.format is None:
            continue
        rounded = node.format.cast(source.detach(), parameters or None)
        edit.replace(edit.node(node.name), edit.add(f"{node.name}__rounded", rounded))
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
        flat = _flat(_expanded(graph), {node.name: node for node in graph.nodes if node.op == "cast"})
        self._run: Any = torch.compile(flat, dynamic=None)

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Run once; tensors in the order of the signature."""
        given = iter(inputs)
        leaves = [
            next(given) if is_tensor else value for is_tensor, value in zip(self._tensors, self._literals, strict=True)
        ]
        before = torch.get_num_threads()
        torch.set_num_threads(self._options.threads)
        try:
            # not as an option of torch.compile: its tracer, too, has to know that weights are constants
            with torch.no_grad(), inductor.patch(freezing=True):
                results = self._run(*leaves)
        except Exception as error:  # torch raises many kinds
            raise EngineError(f"Inductor fails: {str(error).splitlines()[0]}", "engine 'inductor'") from error
        finally:
            torch.set_num_threads(before)
        return [result for result in results if isinstance(result, Tensor)]

    def executed_precisions(self, inputs: Sequence[Tensor]) -> dict[str, float]:
        """From PyTorch's profiler: oneDNN's integer operators, and everything else."""
        self(inputs)
        with profiler.profile(use_kineto=False) as profile, profiler.record_function("whole"):
            self(inputs)
        assert profile is not None
        times = {str(event.key): float(event.cpu_time_total) for event in profile.key_averages()}
        whole = sum(time for name, time in times.items() if name in _KERNELS)
        rows = {"int8": whole, "f32": max(times["whole"] - whole, 0.0)}
        return shares({name: time for name, time in rows.items() if time})


def _flat(module: fx.GraphModule, casts: Mapping[str, Node]) -> fx.GraphModule:
    """The module with flat inputs and a flat list of results, its casts in the operators that Inductor recognizes."""
    graph = fx.Graph()
    places: dict[fx.Node, fx.Node] = {}
    for node in module.graph.nodes:
        if node.op == "output":
            results = node.args[0] if isinstance(node.args[0], list | tuple) else [node.args[0]]
            unique = list(dict.fromkeys(item for item in results if isinstance(item, fx.Node)))
            graph.output([places[item] for item in unique])
        elif (cast := casts.get(node.name)) is None:
            places[node] = graph.node_copy(node, places.__getitem__)
        elif _is_folded(cast):
            places[node] = _weight(module, graph, cast)
        else:
            places[node] = _activation(graph, cast, places[node.args[0]])  # type: ignore[index]
    graph.eliminate_dead_code()
    return fx.GraphModule(module, graph)


def _weight(module: fx.GraphModule, graph: fx.Graph, cast: Node) -> fx.Node:
    """Codes with a scale for each output channel."""
    assert cast.format is not None
    source, (scale, *_) = cast.args[0], [parameter.tensor for parameter in cast.args[1]]
    codes = cast.format.encode(fold(cast.graph, source.fx), [scale]).codes.to(torch.int8)  # type: ignore[arg-type]
    held = {"codes": codes, "scales": scale.float().flatten(), "zeros": torch.zeros(len(codes), dtype=torch.int64)}
    for name, tensor in held.items():
        module.register_buffer(f"{cast.name}__{name}", tensor)
    given = [graph.get_attr(f"{cast.name}__{name}") for name in held]
    return graph.call_function(_QUANTIZED.dequantize_per_channel.default, (*given, 0, -128, 127, torch.int8))


def _activation(graph: fx.Graph, cast: Node, x: fx.Node) -> fx.Node:
    """Rounded to unsigned codes, shifted where the format is signed, and back."""
    assert cast.format is not None
    scale, *zero = [parameter.tensor for parameter in cast.args[1]]
    shift = 128 if cast.format.element.minimum < 0 else 0
    point = shift + (int(zero[0].item()) if zero else 0)
    how = (float(scale.item()), point, 0, 255, torch.uint8)
    codes = graph.call_function(_QUANTIZED.quantize_per_tensor.default, (x, *how))
    return graph.call_function(_QUANTIZED.dequantize_per_tensor.default, (codes, *how))
