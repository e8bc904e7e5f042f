"""Sums, means, extremes and norms along axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from planish.targets.cpu.builder import Builder
from planish.targets.cpu.rules.arguments import Call, arguments, axes

Rule = Callable[[Builder, Call], Any]


def reduction(op: str) -> Rule:
    """A reduction over some axes, or all."""

    def rule(b: Builder, node: Call) -> str:
        given, source = arguments(node), node.args[0]
        x = b.value(source, node.meta["val"].dtype)
        keep = int(bool(given.get("keepdim", False)))
        return b.emit(op, x, b.ints(*axes(given.get("dim"), source.meta["val"].dim())), keepdims=keep)

    return rule


def logical(op: str) -> Rule:
    """`any`, `all`: a maximum or minimum of zeros and ones."""

    def rule(b: Builder, node: Call) -> str:
        given, source = arguments(node), node.args[0]
        x = b.cast(b.value(source, torch.bool), torch.int32)
        keep = int(bool(given.get("keepdim", False)))
        found = b.emit(op, x, b.ints(*axes(given.get("dim"), source.meta["val"].dim())), keepdims=keep)
        return b.cast(found, torch.bool)

    return rule


def extreme(op: str, place: str) -> Rule:
    """`max`, `min`: of everything, along an axis together with where, or of two tensors."""

    def rule(b: Builder, node: Call) -> Any:
        if isinstance(node.args[1] if len(node.args) > 1 else None, fx.Node):
            dtype = node.meta["val"].dtype
            return b.emit(op.removeprefix("Reduce"), *[b.value(arg, dtype) for arg in node.args[:2]])
        given, source = arguments(node), node.args[0]
        x, rank = b.value(source), source.meta["val"].dim()
        if isinstance(node.meta["val"], torch.Tensor):
            return b.emit(op, x, b.ints(*range(rank)), keepdims=0)
        axis, keep = given["dim"] % rank, int(bool(given["keepdim"]))
        return b.emit(op, x, b.ints(axis), keepdims=keep), b.emit(place, x, axis=axis, keepdims=keep)

    return rule


def place(op: str) -> Rule:
    """`argmax`, `argmin`."""

    def rule(b: Builder, node: Call) -> str:
        given, source = arguments(node), node.args[0]
        x = b.value(source)
        if given["dim"] is None:
            return b.emit("Squeeze", b.emit(op, b.emit("Reshape", x, b.ints(-1)), axis=0, keepdims=1))
        return b.emit(op, x, axis=given["dim"] % source.meta["val"].dim(), keepdims=int(bool(given["keepdim"])))

    return rule


def variance(b: Builder, node: Call) -> str:
    """`var`, `std`, by the mean of squared differences."""
    given, source = arguments(node), node.args[0]
    name = node.target._schema.name.partition("::")[2]
    named = axes(given.get("dim"), source.meta["val"].dim())
    sizes = [b.shape_of(source)[axis] for axis in named]
    correction = given.get("correction", 1 if given.get("unbiased", True) else 0)
    correction = 1 if correction is None else correction
    if None in sizes:
        raise LookupError(f"{name} over an axis of unknown size")
    count = torch.Size(sizes).numel()  # type: ignore[arg-type]
    x, over, keep = b.value(source), b.ints(*named), int(bool(given.get("keepdim", False)))
    centered = b.emit("Sub", x, b.emit("ReduceMean", x, over, keepdims=1))
    result = b.emit("ReduceMean", b.emit("Mul", centered, centered), over, keepdims=keep)
    if correction:
        result = b.emit("Mul", result, b.value(count / max(count - correction, 1), node.meta["val"].dtype))
    return b.emit("Sqrt", result) if name == "std" else result


def vector_norm(b: Builder, node: Call) -> str:
    """The 1- or 2-norm."""
    given, source = arguments(node), node.args[0]
    order = given.get("ord", given.get("p", 2))
    op = {1: "ReduceL1", 2: "ReduceL2", None: "ReduceL2"}.get(order)
    if op is None:
        raise LookupError(f"a vector norm of order {order}")
    over = b.ints(*axes(given.get("dim"), source.meta["val"].dim()))
    return b.emit(op, b.value(source, node.meta["val"].dtype), over, keepdims=int(bool(given.get("keepdim", False))))


def cumsum(b: Builder, node: Call) -> str:
    """Running sum along an axis."""
    return b.emit("CumSum", b.value(node.args[0], node.meta["val"].dtype), b.ints(node.args[1]))


def topk(b: Builder, node: Call) -> Any:
    """The largest (or smallest) along an axis, with where."""
    given = arguments(node)
    return b.emit(
        "TopK",
        b.value(node.args[0]),
        b.size(given["k"]),
        outputs=2,
        axis=given["dim"],
        largest=int(given["largest"]),
        sorted=int(given["sorted"]),
    )


def sort(b: Builder, node: Call) -> Any:
    """All of an axis in order, with where it was."""
    given = arguments(node)
    length = b.dimension(node.args[0], given["dim"])
    return b.emit(
        "TopK", b.value(node.args[0]), length, outputs=2, axis=given["dim"], largest=int(given["descending"]), sorted=1
    )


RULES: dict[str, Rule] = {
    **{name: reduction(op) for name, op in {"sum": "ReduceSum", "mean": "ReduceMean", "prod": "ReduceProd"}.items()},
    **{
        name: reduction(op)
        for name, op in {"amax": "ReduceMax", "amin": "ReduceMin", "logsumexp": "ReduceLogSumExp"}.items()
    },
    "any": logical("ReduceMax"),
    "all": logical("ReduceMin"),
    "max": extreme("ReduceMax", "ArgMax"),
    "min": extreme("ReduceMin", "ArgMin"),
    "argmax": place("ArgMax"),
    "argmin": place("ArgMin"),
    "var": variance,
    "std": variance,
    "linalg_vector_norm": vector_norm,
    "norm": vector_norm,
    "cumsum": cumsum,
    "topk": topk,
    "sort": sort,
}
