"""Tensors of a `.planish` file in as few bytes as what the graph makes of them needs.

A weight of which the graph sees `cast(w) * mask` is stored as the codes of its format, of the numbers that the mask
leaves; masks are bits, and scales the codes of their own format. Nothing that the graph computes changes: each tensor
is unpacked and compared before it is written so, and stored as it is where a single number differed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from planish.errors import PlanishError, UntrustedFile
from planish.formats import Format
from planish.formats.codes import Codes, pack, pack_parameters, unpack
from planish.graph.ops import base_name
from planish.graph.sparse import pack_mask, unpack_mask

if TYPE_CHECKING:
    from planish.graph.graph import Graph

PREFIX = "packed:"
Rows = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class _Seen:
    """What a graph makes of a tensor before anything else reads it.

    Attributes:
        mask: Name of the bool tensor that it is multiplied with; empty for none.
        form: The format that it is cast to; None for none.
        parameters: Names of the cast's parameters.
    """

    mask: str = ""
    form: Format | None = None
    parameters: tuple[str, ...] = ()


def pack_tensors(graph: Graph, tensors: Mapping[str, Tensor], whole: bool) -> tuple[dict[str, Tensor], Rows]:
    """The tensors to write, and how those whose names begin with `packed:` are to be read.

    Args:
        graph: It says how tensors are read.
        tensors: Those to store, by name; contiguous.
        whole: Keep numbers that the graph does not see: what a mask hides, and what a cast rounds away.
    """
    written, rows = dict(tensors), {}
    seen, levels = _seen(graph, tensors), dict(_levels(graph))
    for name, tensor in tensors.items():
        found = None
        if tensor.dtype == torch.bool and tensor.numel() > 8:
            parts, run = pack_mask(tensor)
            found = parts, {"kind": "mask", "shape": list(tensor.shape), "run": run}
        elif name in levels:
            found = _pack_level(tensor, *levels[name])
        elif name in seen:
            found = _pack_numbers(tensor, seen[name], tensors, whole)
        if found is not None:
            del written[name]
            written |= {f"{PREFIX}{name}:{part}": data for part, data in found[0].items()}
            rows[name] = found[1]
    return written, rows


def unpack_tensors(stored: Mapping[str, Tensor], rows: Rows, where: str) -> dict[str, Tensor]:
    """The inverse of `pack_tensors`.

    Raises:
        UntrustedFile: A row does not fit its bytes, or the tensors that it names.
    """
    tensors = {name: tensor for name, tensor in stored.items() if not name.startswith(PREFIX)}
    for kind in ("mask", "level", "numbers"):  # numbers need the others
        for name, row in rows.items():
            if row["kind"] != kind:
                continue
            head = f"{PREFIX}{name}:"
            parts = {key.removeprefix(head): value for key, value in stored.items() if key.startswith(head)}
            try:
                tensors[name] = _unpack(parts, row, tensors, f"{where}, {name}")
            except PlanishError as error:
                raise UntrustedFile(f"the file is damaged: {error.what}", f"{where}, {name}") from error
    if lost := rows.keys() - tensors.keys():
        raise UntrustedFile(f"the file is damaged: {min(lost)} is stored in no known way", where)
    return tensors


def _seen(graph: Graph, tensors: Mapping[str, Tensor]) -> dict[str, _Seen]:
    """What the graph makes of each tensor that it reads once."""
    names = {id(graph.tensors[name]): name for name in tensors if name in graph.tensors}
    reads: dict[int, list[fx.Node]] = {}
    for node in graph.fx.nodes:
        if node.op == "get_attr" and str(node.target) in graph.tensors:
            reads.setdefault(id(graph.tensors[str(node.target)]), []).append(node)
    found = {names[key]: _followed(graph, nodes[0], names) for key, nodes in reads.items() if len(nodes) == 1}
    return {name: seen for name, seen in found.items() if seen != _Seen()}


def _followed(graph: Graph, node: fx.Node, names: Mapping[int, str]) -> _Seen:
    mask, form, parameters = "", None, ()
    while len(node.users) == 1:
        user = next(iter(node.users))
        kind, others = base_name(user.target), [source for source in user.all_input_nodes if source is not node]
        held = [graph.tensors.get(str(other.target)) if other.op == "get_attr" else None for other in others]
        known = [names[id(tensor)] for tensor in held if tensor is not None]
        if kind == "cast" and form is None and user.args[0] is node and len(known) == len(others):
            form, parameters = Format.parse(str(user.args[2])), tuple(known)
            if form.is_dynamic or len(parameters) != len(form.levels):
                return _Seen(mask)
        elif kind == "mul" and not mask and len(known) == 1 and _masks(held[0], node):
            mask = known[0]
        else:
            break
        node = user
    return _Seen(mask, form, parameters)


def _masks(other: Tensor | None, node: fx.Node) -> bool:
    return other is not None and other.dtype == torch.bool and other.shape == node.meta["val"].shape


def _levels(graph: Graph) -> Iterator[tuple[str, tuple[Format, int]]]:
    """The parameters of casts, each with its format and place."""
    canonical: dict[int, str] = {}
    for name, tensor in graph.tensors.items():
        canonical.setdefault(id(tensor), name)
    for node in graph.fx.nodes:
        if base_name(node.target) == "cast" and node.op == "call_function":
            form, places = Format.parse(str(node.args[2])), node.args[1]
            assert isinstance(places, list | tuple)
            for index, place in enumerate(places):
                if isinstance(place, fx.Node) and place.op == "get_attr" and len(places) == len(form.levels):
                    yield canonical[id(graph.tensors[str(place.target)])], (form, index)


def _pack_level(tensor: Tensor, form: Format, index: int) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    name, element = form.levels[index]
    if element.bits >= 8 * tensor.element_size() or not tensor.numel() or not bool(torch.isfinite(tensor).all()):
        return None
    alone = [torch.zeros((), dtype=tensor.dtype)] * len(form.levels)
    alone[index] = tensor
    data = pack_parameters(form, alone)[name]
    row = {"kind": "level", "shape": list(tensor.shape), "format": str(form), "level": index}
    back = _unpack({"codes": data}, row, {}, name)
    return ({"codes": data}, row) if back.dtype == tensor.dtype and torch.equal(back, tensor) else None


def _pack_numbers(
    tensor: Tensor, seen: _Seen, tensors: Mapping[str, Tensor], whole: bool
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
        return None
    form, parameters = seen.form, [tensors[name] for name in seen.parameters]
    mask = tensors[seen.mask] if seen.mask else None
    if form is not None and (form.bits >= 8 * tensor.element_size() or not all(map(_is_finite, parameters))):
        form = None
    if mask is None and form is None:
        return None
    row: dict[str, Any] = {
        "kind": "numbers",
        "shape": list(tensor.shape),
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "mask": seen.mask,
        "format": "" if form is None else str(form),
        "parameters": [] if form is None else list(seen.parameters),
    }
    shown = tensor if mask is None else tensor.masked_fill(~mask, 0)
    if form is None:
        numbers = shown.reshape(-1) if mask is None else shown[mask]
    else:
        codes = form.encode(shown, parameters).codes
        numbers = pack(codes if mask is None else codes[mask], form.bits)
    back = _unpack({"numbers": numbers}, row, tensors, "")
    if form is not None and not torch.equal(form.cast(back, parameters), form.cast(shown, parameters)):
        return _pack_numbers(tensor, _Seen(seen.mask), tensors, whole)
    return None if whole and not torch.equal(back, tensor) else ({"numbers": numbers}, row)


def _is_finite(parameter: Tensor) -> bool:
    return bool(torch.isfinite(parameter).all())


def _unpack(parts: Mapping[str, Tensor], row: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> Tensor:
    shape = tuple(row["shape"])
    if not all(type(size) is int and 0 <= size < 1 << 40 for size in shape):
        raise UntrustedFile(f"{shape} is no shape", where)
    if row["kind"] == "mask":
        return unpack_mask(parts, row["run"], shape, where)
    if row["kind"] == "level":
        name, element = Format.parse(row["format"]).levels[row["level"]]
        level = element.from_bits(unpack(parts["codes"], element.bits, shape))
        return level if name.endswith("zero_point") else element.from_codes(level, torch.float32)
    return _unpack_numbers(parts["numbers"], row, tensors, shape, where)


def _unpack_numbers(
    numbers: Tensor, row: Mapping[str, Any], tensors: Mapping[str, Tensor], shape: tuple[int, ...], where: str
) -> Tensor:
    dtype = getattr(torch, row["dtype"]) if str(row["dtype"]).isidentifier() else None
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise UntrustedFile(f"{row['dtype']!r} is no type of numbers", where)
    mask = tensors[row["mask"]] if row["mask"] else None
    if mask is not None and (mask.dtype != torch.bool or tuple(mask.shape) != shape):
        raise UntrustedFile("a mask has another shape than what it masks", where)
    count = math.prod(shape) if mask is None else int(mask.sum())
    if not row["format"]:
        if tuple(numbers.shape) != (count,) or numbers.dtype != dtype:
            raise UntrustedFile(f"{count} numbers of {dtype} are stored as {numbers.numel()} of {numbers.dtype}", where)
        return _scattered(numbers, mask, shape)
    form = Format.parse(row["format"])
    parameters = tuple(tensors[name] for name in row["parameters"])
    wanted = () if form.is_dynamic else form.level_shapes(shape)
    if form.is_dynamic or [tuple(parameter.shape) for parameter in parameters] != [tuple(size) for size in wanted]:
        raise UntrustedFile(f"the parameters of {form} are of other shapes than it needs", where)
    bits = _scattered(unpack(numbers, form.bits, (count,)), mask, shape)
    codes = form.element.from_bits(bits) if form.residual is None else bits.to(form.code_dtype)
    values = Codes(codes, parameters, form, shape, dtype).decode()
    return values if mask is None else values.masked_fill(~mask, 0)


def _scattered(numbers: Tensor, mask: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    if mask is None:
        return numbers.reshape(shape)
    whole = torch.zeros(shape, dtype=numbers.dtype)
    whole[mask] = numbers
    return whole
