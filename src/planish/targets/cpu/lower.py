"""Graph -> ONNX: one lowering for every engine that reads ONNX.

Each operation is written by its rule in `rules/`. An operation without a rule is decomposed by PyTorch, once, and its
parts are lowered in its place. Names of inputs and outputs are the user's; dynamic sizes keep their names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from onnx import helper
from torch import fx
from torch._decomp import core_aten_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

from planish.errors import EngineError
from planish.graph import Graph, Node
from planish.graph.branches import COND, bodies_of
from planish.graph.operators import is_guard
from planish.graph.ops import base_name
from planish.graph.shapes import size_text
from planish.rewrite import SplitLowRank
from planish.targets.base import Unsupported
from planish.targets.cpu.builder import OPSET, PLAIN, TYPES, Builder, Dialect
from planish.targets.cpu.rules import RULES
from planish.targets.cpu.rules.arguments import Call
from planish.targets.cpu.signature import Signature, output_nodes

_VIEWS = frozenset(
    {"view", "reshape", "slice", "select", "transpose", "permute", "unsqueeze", "squeeze", "expand", "t"}
)


@dataclass(frozen=True)
class Lowered:
    """An ONNX model and what could not be written.

    Attributes:
        model: The model; None if anything is unsupported.
        unsupported: Each operation without an ONNX form, with the reason.
    """

    model: onnx.ModelProto | None
    unsupported: tuple[Unsupported, ...]


def lower(graph: Graph, fixed: Mapping[str, int] | None = None, dialect: Dialect = PLAIN) -> Lowered:
    """Write a graph as ONNX.

    Args:
        graph: The graph; its casts become QuantizeLinear and DequantizeLinear, or integer tables.
        fixed: Sizes that will not vary, by the user's name; the others stay dynamic.
        dialect: What the engine takes besides plain ONNX.
    """
    graph = SplitLowRank()(graph)
    b = Builder(graph, fixed, dialect)
    refused: list[Unsupported] = []
    inputs = []
    for node in graph.fx.nodes:
        if node.op == "placeholder":
            b.set(node, b.name(node.name))
            if isinstance(node.meta.get("val"), torch.Tensor):
                inputs.append(_declare(b, node, b.value(node)))
        else:
            refused += _write(b, node)
    if refused:
        return Lowered(None, tuple(refused))
    outputs = []
    for name, node in zip(Signature.of(graph).outputs, output_nodes(graph), strict=True):
        made = b.name(name)
        outputs.append(_result(b, node, made))
    nodes, used = _live(b.nodes, [output.name for output in outputs])
    constants = [tensor for name, tensor in b.constants.items() if name in used]
    proto = helper.make_graph(nodes, "planish", inputs, outputs, constants)
    opsets = [helper.make_opsetid(domain, OPSET if not domain else 1) for domain in sorted(b.domains | {""})]
    return Lowered(helper.make_model(proto, opset_imports=opsets, ir_version=10, producer_name="planish"), ())


def _live(nodes: list[onnx.NodeProto], outputs: list[str]) -> tuple[list[onnx.NodeProto], set[str]]:
    """The nodes that outputs need, and all names that they read: a rule may take another value than the last one."""
    used, live = set(outputs), []
    for node in reversed(nodes):
        if not used.isdisjoint(node.output):
            live.append(node)
            used.update(_read_by(node))
    return live[::-1], used


def _read_by(node: onnx.NodeProto) -> Iterator[str]:
    """What a step reads, or the branches in it."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _read_by(inner)


def _result(b: Builder, node: Call, name: str) -> onnx.ValueInfoProto:
    b.nodes.append(helper.make_node("Identity", [b.value(node)], [name], name=name))
    return _declare(b, node, name)


def _declare(b: Builder, node: Call, name: str) -> onnx.ValueInfoProto:
    value = node.meta["val"]
    sizes = [
        known if known is not None else str(size_text(size, b.graph.symbols))
        for known, size in zip(b.shape_of(node), value.shape, strict=True)
    ]
    return helper.make_tensor_value_info(name, TYPES[value.dtype], sizes)


def _write(b: Builder, node: Call) -> Iterator[Unsupported]:
    """Write one operation, or its parts; yields what cannot be."""
    if node.op != "call_function" or is_guard(node.target) or b.known(node) is not None:
        return
    b.scope = Node(b.graph, node).path
    name = base_name(node.target)
    in_place = name.endswith("_") and not name.endswith("__") and name[:-1] in RULES
    rule = RULES.get(name[:-1] if in_place else name)
    value = node.meta.get("val")
    if name == "getitem" and b.is_refused(node.args[0]):
        b.set(node, "")
        return
    try:
        if isinstance(value, torch.SymInt | int) and b.size_of(node) is not None:
            return
        if in_place and base_name(node.args[0].target) in _VIEWS:
            raise LookupError("it writes into a view of another tensor")
        if isinstance(value, torch.Tensor) and value.dtype not in TYPES:
            raise LookupError(f"ONNX has no tensors of {value.dtype}")
        if node.target is COND:
            yield from _choose(b, node)
        elif rule is not None:
            b.set(node, rule(b, node))
            if in_place:
                b.set(node.args[0], b.value(node))
        else:
            _decompose(b, node)
    except LookupError as error:
        yield Unsupported(Node(b.graph, node).path, name, str(error.args[0] if error.args else error))
        b.set(node, "")  # so that what reads it is judged by itself


def _choose(b: Builder, node: Call) -> Iterator[Unsupported]:
    """`torch.cond` as If, whose branches read what stands outside by its name.

    Raises:
        LookupError: A branch gives something that is no tensor.
    """
    refused: list[Unsupported] = []
    branches = {}
    for place, body in zip(("then_branch", "else_branch"), bodies_of(node, b.graph.branches), strict=True):
        with b.body() as (steps, constants):
            for step in body.nodes:
                refused += _write(b, step)
            if refused:
                continue
            results: Any = body.output_node().args[0]
            if not all(isinstance(result, fx.Node) for result in results):
                raise LookupError("a branch gives something that is no tensor")
            outputs = [_result(b, result, b.name(f"{place}.{result.name}")) for result in results]
        nodes, used = _live(steps, [output.name for output in outputs])
        own = [tensor for name, tensor in constants.items() if name in used]
        branches[place] = helper.make_graph(nodes, place, [], outputs, own)
    if refused:
        yield from refused
        b.set(node, "")
        return
    made = b.emit("If", b.value(node.args[0], torch.bool), outputs=len(node.meta["val"]), **branches)
    b.set(node, made if isinstance(made, tuple) else (made,))


def _decompose(b: Builder, node: Call) -> None:
    """Let PyTorch express an operation by simpler ones, and write those.

    Raises:
        LookupError: PyTorch has no decomposition, or one of the parts has no rule either.
    """
    if not isinstance(node.target, torch._ops.OpOverload):
        raise LookupError("it repeats computations, which is not written as ONNX")
    sources = [source for source in node.all_input_nodes if isinstance(source.meta.get("val"), torch.Tensor)]
    if any(not isinstance(source.meta.get("val"), torch.Tensor) for source in node.all_input_nodes):
        raise LookupError("there is no ONNX form for it with sizes that vary")

    def call(*tensors: torch.Tensor) -> Any:
        places = dict(zip(sources, tensors, strict=True))
        args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), places.__getitem__)
        return node.target(*args, **kwargs)  # type: ignore[operator]

    table = {op: f for op, f in core_aten_decompositions().items() if base_name(op) not in RULES}
    try:
        parts = make_fx(call, decomposition_table=table, tracing_mode="real")(*[s.meta["val"] for s in sources]).graph  # type: ignore[arg-type]
    except Exception as error:  # torch raises many kinds
        raise LookupError(f"there is no ONNX form for it, and PyTorch cannot decompose it ({error})") from error
    calls = [part for part in parts.nodes if part.op == "call_function"]
    if any(part.target == node.target for part in calls):
        raise LookupError("there is no ONNX form for it")
    for part, source in zip([part for part in parts.nodes if part.op == "placeholder"], sources, strict=True):
        b.set(part, b.value(source))
    for part in calls:
        rule = RULES.get(base_name(part.target))
        if rule is None:
            raise LookupError(f"there is no ONNX form for its part {base_name(part.target)}")
        b.set(part, rule(b, part))
    result = parts.output_node().args[0]
    b.set(node, tuple(map(b.value, result)) if isinstance(result, list | tuple) else b.value(result))


def onnx_model(graph: Graph, fixed: Mapping[str, int] | None = None, dialect: Dialect = PLAIN) -> onnx.ModelProto:
    """As `lower`, for a graph that is known to have an ONNX form.

    Raises:
        EngineError: It has none; names the first operation.
    """
    lowered = lower(graph, fixed, dialect)
    if lowered.model is None:
        first = lowered.unsupported[0]
        raise EngineError(f"{first.op} has no ONNX form: {first.reason}", first.path, "Cpu(engine='inductor')")
    return lowered.model
