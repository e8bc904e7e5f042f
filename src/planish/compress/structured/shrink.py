"""Taking channels out of a graph: tensors sliced, sizes that were baked into operations rewritten."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from planish.analysis.dependency import Dependencies, Dim, Keep, indices_of, moved, size_of
from planish.analysis.dependency.trace import bound, operation
from planish.errors import GraphError
from planish.graph import Graph
from planish.graph.branches import copied
from planish.graph.copying import copy_graph
from planish.graph.propagate import dynamic_axes, propagate


def shrink(found: Dependencies, keep: Keep, values: Mapping[str, torch.Tensor] | None = None) -> Graph:
    """The graph without the channels that `keep` leaves out; equal to it with their readers' weights at zero.

    Args:
        found: The dependencies of the graph.
        keep: The indices that stay of each dimension that loses some.
        values: The tensors to slice, in the graph's own shapes; by default its own.

    Raises:
        GraphError: An operation does not take the new sizes; names it.
    """
    graph = found.graph
    steps = copy_graph(graph.fx)
    for old, new in zip(list(graph.fx.nodes), list(steps.nodes), strict=True):
        rewrite = _REWRITES.get(operation(old)) if old.op == "call_function" else None
        if rewrite is not None:
            rewrite(_Call(found, keep, old, new))
    tensors, known = dict(values or graph.tensors), dict[int, torch.Tensor]()
    for name, axes in found.tensors.items():
        old = tensors[name]
        tensors[name] = known.setdefault(id(old), _sliced(old, axes, keep))
    bodies = copied(graph.branches, fx.GraphModule)
    try:
        symbols = propagate(steps, bodies, tensors, pytree.tree_leaves(graph.example), dynamic_axes(graph))
    except (RuntimeError, TypeError, ValueError) as error:
        raise GraphError(f"the smaller graph does not fit together: {error}", hint="leave that group out") from error
    return graph.replace(fx=steps, tensors=tensors, branches=bodies, symbols=symbols)


def nbytes(found: Dependencies, names: Iterable[str], keep: Keep) -> int:
    """Bytes of some tensors once the channels that `keep` leaves out are gone."""
    total = 0
    for name in names:
        size = found.graph.tensors[name].element_size()
        for dim in found.tensors[name]:
            size *= size_of(dim, keep)
        total += size
    return total


def _sliced(tensor: torch.Tensor, axes: Sequence[Dim], keep: Keep) -> torch.Tensor:
    lost = [axis for axis, dim in enumerate(axes) if moved(dim, keep)]
    if not lost:
        return tensor
    value = tensor.detach()
    for axis in lost:
        value = value.index_select(axis, indices_of(axes[axis], keep).to(value.device))
    value = value.contiguous()
    return nn.Parameter(value, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else value


@dataclass(frozen=True)
class _Call:
    """An operation of the new graph, with what its axes were and the sizes that they will have."""

    found: Dependencies
    keep: Keep
    old: fx.Node
    new: fx.Node

    @property
    def results(self) -> list[tuple[Dim, ...]]:
        value = self.found.trace.values[self.old]
        return value if isinstance(value, list) else [value or ()]

    def axes(self, name: str) -> tuple[Dim, ...]:
        return self.found.trace.axes(bound(self.old)[name])

    def moved(self, *dims: Dim) -> bool:
        return any(moved(dim, self.keep) for dim in dims)

    def size(self, dim: Dim) -> int:
        return size_of(dim, self.keep)

    def given(self, name: str) -> Any:
        return bound(self.new)[name]

    def give(self, name: str, value: Any) -> None:
        """Replace an argument."""
        names = [argument.name for argument in self.new.target._schema.arguments]  # type: ignore[union-attr]
        if (place := names.index(name)) < len(self.new.args):
            self.new.update_arg(place, value)
        else:
            self.new.update_kwarg(name, value)


def _sizes(name: str) -> Callable[[_Call], None]:
    """Operations that are given the shape of their result."""

    def rewrite(call: _Call) -> None:
        (axes,) = call.results
        if call.moved(*axes):
            call.give(name, [_resized(call, size, dim) for size, dim in zip(call.given(name), axes, strict=True)])

    return rewrite


def _resized(call: _Call, size: Any, dim: Dim) -> Any:
    if not call.moved(dim) or size == -1:
        return size
    if isinstance(size, int):
        return call.size(dim)
    # a dynamic size times channels; nothing else of the product has changed
    with call.new.graph.inserting_before(call.new):
        times = call.new.graph.call_function(operator.mul, (size, call.size(dim)))
        scaled = call.new.graph.call_function(operator.floordiv, (times, dim.size))
    for node in (times, scaled):
        node.meta["nn_module_stack"] = dict(call.new.meta.get("nn_module_stack") or {})
    return scaled


def _split(call: _Call) -> None:
    place = call.given("dim")
    parts = [axes[place] for axes in call.results]
    if call.moved(*parts):
        source = call.new.args[0]
        call.new.target = torch.ops.aten.split_with_sizes.default
        call.new.args, call.new.kwargs = (source, [call.size(part) for part in parts], place), {}


def _slice(call: _Call) -> None:
    dim = call.axes("self")[call.given("dim")]
    if not call.moved(dim):
        return
    kept = indices_of(dim, call.keep)
    for name in ("start", "end"):
        border = call.given(name)
        if isinstance(border, int) and 0 != border < dim.size:
            border += dim.size if border < 0 else 0
            call.give(name, int((kept < border).sum()))


def _unflatten(call: _Call) -> None:
    (axes,) = call.results
    sizes = call.given("sizes")
    start = call.given("dim") % len(call.axes("self"))
    new = axes[start : start + len(sizes)]
    if call.moved(*new):
        call.give("sizes", [_resized(call, size, dim) for size, dim in zip(sizes, new, strict=True)])


def _conv(call: _Call) -> None:
    weight = call.axes("weight")
    channels = call.axes("input")[1 - len(weight)]
    if call.given("groups") > 1 and call.moved(channels, *weight[:2]):
        transposed = "transpose" in operation(call.old)
        whole = call.results[0][1 - len(weight)] if transposed else channels
        call.give("groups", call.size(whole) // call.size(weight[1]))


def _group_norm(call: _Call) -> None:
    channels = call.axes("input")[1]
    if call.moved(channels):
        call.give("num_groups", call.given("num_groups") * call.size(channels) // channels.size)


def _attention(call: _Call) -> None:
    features = call.axes("query")[-1]
    if call.moved(features) and call.given("scale") is None:
        call.give("scale", features.size**-0.5)


_REWRITES: dict[str, Callable[[_Call], None]] = {
    **dict.fromkeys(
        ("view", "expand", "_unsafe_view", "broadcast_to", "zeros", "ones", "full", "new_zeros", "new_ones",
         "new_full"),
        _sizes("size"),
    ),
    "reshape": _sizes("shape"),
    "unflatten": _unflatten,
    **dict.fromkeys(("split", "chunk", "split_with_sizes"), _split),
    "slice": _slice,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _conv),
    "group_norm": _group_norm,
    "scaled_dot_product_attention": _attention,
}  # fmt: skip
