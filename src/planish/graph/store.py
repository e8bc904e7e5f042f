"""The `.planish` file: safetensors, whose header holds the graph as JSON.

One file that any safetensors reader can open, that is mapped rather than read, and in which nothing can run: operations
are looked up on the allow-list, structures among registered types, and every name that ends up in generated code must
be a plain identifier. Quantized and pruned weights are packed (`planish.graph.packed`).
"""

from __future__ import annotations

import json
import keyword
import math
import os
from contextlib import suppress
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import fx, nn
from torch.fx.graph import _PyTreeCodeGen, _PyTreeInfo
from torch.utils import _pytree as pytree

from planish.errors import ModelError, UntrustedFile, UserError
from planish.graph import operators
from planish.graph.branches import assembled
from planish.graph.modes import COUNTER, SWITCH
from planish.graph.packed import pack_tensors, unpack_tensors
from planish.graph.propagate import dynamic_axes, propagate
from planish.graph.structure import dump_spec, load_spec

if TYPE_CHECKING:
    from planish.graph.graph import Graph

VERSION = 3


def save(graph: Graph, path: str | os.PathLike[str], whole: bool = False) -> None:
    """Write a graph, the file whole or not at all.

    Args:
        graph: What to write.
        path: Where.
        whole: Keep the numbers that the graph does not see: what a mask hides, and what a cast rounds away.

    Raises:
        UserError: The disk refused.
    """
    target = Path(path)
    canonical: dict[int, str] = {}
    aliases = {name: canonical.setdefault(id(tensor), name) for name, tensor in graph.tensors.items()}
    tensors = {name: _plain(graph.tensors[name]) for name in canonical.values()}
    tensors, packed = pack_tensors(graph, tensors, whole)
    leaves, example_spec = pytree.tree_flatten(graph.example)
    tensors |= {f"example:{i}": _plain(leaf) for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)}
    refusal = graph.training_refusal
    document = {
        "version": VERSION,
        "aliases": {name: owner for name, owner in aliases.items() if name != owner},
        "packed": packed,
        "trainable": {name: graph.tensors[name].requires_grad for name in sorted(graph.parameter_names)},
        "buffers": sorted(graph.buffers),
        "dynamic": _encode({"by_input": dict(graph.dynamic), "axes": dynamic_axes(graph)}),
        "example": {
            "spec": dump_spec(example_spec),
            "leaves": [None if isinstance(leaf, torch.Tensor) else _encode(leaf) for leaf in leaves],
        },
        "training_refusal": None if refusal is None else [refusal.what, refusal.where, refusal.hint],
        "graph": _encode_graph(graph.fx, in_names=True),
        "branches": {name: _encode_graph(body.graph) for name, body in graph.branches.items()},
    }
    draft = target.with_name(f".{target.name}.draft")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, draft, metadata={"planish": json.dumps(document)})
        draft.replace(target)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise UserError(
            f"cannot write the graph: {error}", str(target), "free space on the disk, or another place"
        ) from error


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The attributes of the `Graph` that a file holds.

    Raises:
        ModelError: There is no such file.
        UntrustedFile: It is damaged, is no graph, or names something outside the allow-list.
    """
    where = str(path)
    if not Path(path).is_file():
        raise ModelError("there is no such file", where)
    try:
        with safe_open(where, framework="pt") as file:
            document = json.loads((file.metadata() or {})["planish"])
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    except (SafetensorError, KeyError, json.JSONDecodeError, RecursionError, OSError) as error:
        raise UntrustedFile("not a readable .planish file", where, "write it with graph.save(...)") from error
    if document.get("version") != VERSION:
        raise UntrustedFile(f"the file has version {document.get('version')!r}, this Planish reads {VERSION}", where)
    try:
        return _decode_document(document, stored, where)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError, StopIteration) as error:
        raise UntrustedFile(f"the file is damaged: {error}", where, "write it again with graph.save(...)") from error


def _decode_document(document: dict[str, Any], stored: dict[str, torch.Tensor], where: str) -> dict[str, Any]:
    stored = unpack_tensors(stored, document["packed"], where)
    for name in (*stored, *document["aliases"], *document["branches"]):
        if not name.startswith("example:"):
            _dotted(name, where)
    trainable: dict[str, bool] = document["trainable"]
    tensors = {n: nn.Parameter(t, trainable[n]) if n in trainable else t for n, t in stored.items() if ":" not in n}
    tensors |= {name: tensors[owner] for name, owner in document["aliases"].items()}
    leaves = [
        stored[f"example:{i}"] if leaf is None else _decode(leaf, {}, where)
        for i, leaf in enumerate(document["example"]["leaves"])
    ]
    example = pytree.tree_unflatten(leaves, load_spec(document["example"]["spec"], where))
    branches = {_identifier(name, where): _decode_graph(body, where) for name, body in document["branches"].items()}
    bodies = assembled(_without_circles(branches, where), fx.GraphModule)
    graph = _decode_graph(document["graph"], where)
    dynamic = _decode(document["dynamic"], {}, where)
    inputs = [leaf for leaf in leaves if leaf is not None]
    symbols = propagate(graph, bodies, tensors, inputs, dynamic["axes"])
    refusal = document["training_refusal"]
    return {
        "fx": graph,
        "tensors": tensors,
        "example": example,
        "buffers": frozenset(document["buffers"]),
        "branches": bodies,
        "dynamic": dynamic["by_input"],
        "symbols": symbols,
        "training_refusal": None if refusal is None else ModelError(*refusal),
    }


def _encode_graph(graph: fx.Graph, in_names: bool = False) -> dict[str, Any]:
    nodes = []
    for node in graph.nodes:
        row: dict[str, Any] = {"name": node.name, "op": node.op}
        if node.op == "call_function":
            row |= {
                "target": operators.to_name(node.target),
                "args": _encode(node.args),
                "kwargs": _encode(node.kwargs),
            }
        elif node.op == "output":
            row["args"] = _encode(node.args)
        else:
            row["target"] = str(node.target)
        if stack := node.meta.get("nn_module_stack"):
            row["modules"] = [
                [key, path, kind if isinstance(kind, str) else kind.__name__] for key, (path, kind) in stack.items()
            ]
        if switch := node.meta.get(SWITCH):
            row["switch"] = {name: _encode(list(values)) for name, values in switch.items()}
        if counter := node.meta.get(COUNTER):
            row["counter"] = counter
        nodes.append(row)
    if not in_names:
        return {"nodes": nodes}
    info: _PyTreeInfo = graph._codegen.pytree_info  # type: ignore[attr-defined]
    return {
        "nodes": nodes,
        "arguments": info.orig_args,
        "in_spec": dump_spec(info.in_spec),
        "out_spec": dump_spec(info.out_spec),  # type: ignore[arg-type]
    }


def _decode_graph(document: dict[str, Any], where: str) -> fx.Graph:
    graph, known = fx.Graph(), {}
    for row in document["nodes"]:
        name, op = _identifier(row["name"], where), row["op"]
        if op == "call_function":
            args, kwargs = _decode(row["args"], known, where), _decode(row["kwargs"], known, where)
            node = graph.create_node(op, operators.from_name(row["target"], where), tuple(args), kwargs, name)
        elif op == "output":
            node = graph.output(_decode(row["args"], known, where)[0])
        elif op in ("placeholder", "get_attr"):
            node = graph.create_node(op, _dotted(row["target"], where), name=name)
        else:
            raise UntrustedFile(f"a graph does not hold nodes of kind {op!r}", where)
        if node.name != name and op != "output":
            node._rename(name)
        known[name] = node
        if modules := row.get("modules"):
            node.meta["nn_module_stack"] = {str(key): (str(path), str(kind)) for key, path, kind in modules}
        if switch := row.get("switch"):
            node.meta[SWITCH] = {argument: tuple(_decode(values, known, where)) for argument, values in switch.items()}
        if counter := row.get("counter"):
            node.meta[COUNTER] = _dotted(counter, where)
    if [row["op"] for row in document["nodes"]][-1:] != ["output"]:
        raise UntrustedFile("a graph in the file returns nothing", where)
    if "arguments" in document:
        names = [_identifier(name, where) for name in document["arguments"]]
        specs = load_spec(document["in_spec"], where), load_spec(document["out_spec"], where)
        _check_keywords(specs[0], where)
        graph.set_codegen(_PyTreeCodeGen(_PyTreeInfo(names, *specs)))
    return graph


def _without_circles(branches: dict[str, fx.Graph], where: str) -> dict[str, fx.Graph]:
    """Refuse a branch that holds itself, or what is no branch."""
    inner = {name: {str(n.target) for n in body.nodes if n.op == "get_attr"} for name, body in branches.items()}
    try:
        tuple(TopologicalSorter(inner).static_order())
    except CycleError as error:
        raise UntrustedFile("a branch of torch.cond holds itself", where) from error
    if unknown := set().union(*inner.values()) - branches.keys():
        raise UntrustedFile(f"a branch of torch.cond holds {min(unknown)!r}, which is no branch", where)
    return branches


def _check_keywords(spec: pytree.TreeSpec, where: str) -> None:
    """Keyword names of the call become part of generated code."""
    for name in spec.child(1).context if spec.num_children == 2 else ():
        _identifier(name, where)


def _identifier(name: Any, where: str) -> str:
    if (
        not isinstance(name, str)
        or not name.isidentifier()
        or not name.isascii()
        or keyword.iskeyword(name)
        or "__" in name[:2]
    ):
        raise UntrustedFile(f"{name!r} is not a plain name", where)
    return name


def _dotted(name: Any, where: str) -> str:
    parts = name.split(".") if isinstance(name, str) else [""]
    for part in parts:
        if not (part.isdecimal() or (part.isidentifier() and part.isascii())) or part.startswith("__"):
            raise UntrustedFile(f"{name!r} is not the name of a tensor", where)
    return name


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().clone(memory_format=torch.contiguous_format)


_TORCH_VALUES: dict[type, str] = {torch.dtype: "dtype", torch.layout: "layout", torch.memory_format: "memory_format"}


def _encode(value: Any) -> Any:
    """A JSON value; what JSON lacks is an object with one key that starts with `$`."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else {"$float": str(value)}
        case complex():
            return {"$complex": [value.real, value.imag]}
        case fx.Node():
            return {"$node": value.name}
        case torch.device():
            return {"$device": str(value)}
        case slice():
            return {"$slice": [_encode(value.start), _encode(value.stop), _encode(value.step)]}
        case dict():
            return {"$dict": [[_encode(key), _encode(item)] for key, item in value.items()]}
        case tuple():
            return {"$tuple": [_encode(item) for item in value]}
        case list():
            return [_encode(item) for item in value]
    for kind, name in _TORCH_VALUES.items():
        if isinstance(value, kind):
            return {f"${name}": str(value).removeprefix("torch.")}
    raise UserError(f"a graph with an argument of type {type(value).__name__} cannot be saved", str(value))


def _decode(value: Any, nodes: dict[str, fx.Node], where: str) -> Any:
    if isinstance(value, list):
        return [_decode(item, nodes, where) for item in value]
    if not isinstance(value, dict):
        return value
    ((key, inner),) = value.items()
    match key:
        case "$float":
            return float(inner)
        case "$complex":
            return complex(*inner)
        case "$node":
            return nodes[inner]
        case "$device":
            return torch.device(inner)
        case "$slice":
            return slice(*(_decode(item, nodes, where) for item in inner))
        case "$dict":
            return {_decode(k, nodes, where): _decode(v, nodes, where) for k, v in inner}
        case "$tuple":
            return tuple(_decode(item, nodes, where) for item in inner)
    kind = next((kind for kind, name in _TORCH_VALUES.items() if key == f"${name}"), None)
    found = getattr(torch, inner, None) if kind and isinstance(inner, str) and inner.isidentifier() else None
    if kind is None or not isinstance(found, kind):
        raise UntrustedFile(f"unknown value {key}: {inner!r}", where)
    return found
