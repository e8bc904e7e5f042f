"""A part of a graph as a graph of its own: what a stage of a pipeline or of a cascade runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx
from torch.fx.graph import _PyTreeCodeGen, _PyTreeInfo
from torch.utils import _pytree as pytree

from planish.errors import OptionError
from planish.graph.assemble import read_by
from planish.graph.ops import base_name
from planish.graph.shapes import size_text

if TYPE_CHECKING:
    from planish.graph.graph import Graph


def part(
    graph: Graph,
    own: set[fx.Node],
    takes: Sequence[fx.Node],
    gives: Sequence[fx.Node],
    example: Iterable[Tensor],
    out_spec: pytree.TreeSpec | None = None,
) -> Graph:
    """The graph of some steps, with its own view of what is computed from tensors only, and of sizes.

    Args:
        graph: The whole.
        own: The steps that it runs. What they need and nobody gives it is computed in it again.
        takes: Inputs of the model and values of other parts, which become its inputs, one by one.
        gives: What it returns.
        example: A value for each of `takes`.
        out_spec: The structure of what it returns; None makes a list of it.

    Raises:
        OptionError: It needs a size that no input of it has.
    """
    steps = _cut(graph, own, takes, gives, out_spec)
    tensors = read_by(steps, graph.tensors)
    made = graph.replace(fx=steps, tensors=tensors, buffers=graph.buffers & tensors.keys(), origin=None)
    varying = {
        node.name: {axis: size for axis, size in enumerate(node.shape or ()) if isinstance(size, str)}
        for node in made.inputs
    }
    return made.replace(example=(tuple(example), {}), dynamic=varying).verify()


def is_size(node: fx.Node) -> bool:
    """Whether a node is a number made of sizes."""
    leaves = pytree.tree_leaves(node.meta.get("val"))
    return node.op == "call_function" and not any(isinstance(leaf, Tensor) for leaf in leaves)


def ancestors(*nodes: fx.Node, past_sizes: bool = True, given: Iterable[fx.Node] = ()) -> set[fx.Node]:
    """The nodes and everything that they are computed from, as far as it is not `given`; unless `past_sizes`, not what
    only its size is read of."""
    known = set(given)
    found, waiting = set(nodes), [node for node in nodes if node not in known]
    while waiting:
        node = waiting.pop()
        for source in () if is_size(node) and not past_sizes else node.all_input_nodes:
            if source not in found and source not in known:
                found.add(source)
                waiting.append(source)
    return found


def _cut(
    graph: Graph,
    own: set[fx.Node],
    takes: Sequence[fx.Node],
    gives: Sequence[fx.Node],
    out_spec: pytree.TreeSpec | None,
) -> fx.Graph:
    """The steps as a list of their own."""
    steps, places = fx.Graph(), dict[fx.Node, fx.Node]()

    def copy(node: fx.Node) -> None:
        if is_size(node) and base_name(node.target) == "sym_size":
            places[node] = _measured(graph, node, places, takes, steps)
            return
        for source in node.all_input_nodes:
            if source not in places:
                copy(source)
        places[node] = steps.node_copy(node, places.__getitem__)
        places[node]._rename(node.name)

    needed = [node for node in graph.fx.nodes if node in own]
    read = ancestors(*needed, *gives, past_sizes=False, given=takes)
    for node in graph.fx.nodes:
        if node.op == "get_attr" and node in read:
            copy(node)
    for node in takes:
        places[node] = steps.placeholder(node.name)
        places[node].meta = dict(node.meta)
        places[node]._rename(node.name)
    for node in needed:
        if node not in places:
            copy(node)
    steps.output([places[node] for node in gives])
    names = [places[node].name for node in takes]
    spec_in = pytree.tree_structure((tuple(range(len(takes))), {}))
    spec_out = out_spec or pytree.tree_structure(list(range(len(gives))))
    steps.set_codegen(_PyTreeCodeGen(_PyTreeInfo(names, spec_in, spec_out)))
    return steps


def _measured(
    graph: Graph, node: fx.Node, places: dict[fx.Node, fx.Node], takes: Sequence[fx.Node], steps: fx.Graph
) -> fx.Node:
    """A size read off one of the tensors that the part takes."""
    wanted = size_text(node.meta["val"], graph.symbols)
    for source in takes:
        for axis, size in enumerate(source.meta["val"].shape):
            if size_text(size, graph.symbols) == wanted:
                made = steps.call_function(torch.ops.aten.sym_size.int, (places[source], axis))
                made.meta = dict(node.meta)
                return made
    raise OptionError(
        f"a part of the model needs the size {wanted}, which none of its inputs has", node.name, "another module"
    )
