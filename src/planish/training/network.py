"""From a graph to a module that trains, and back: what trains, what stays, and where a teacher is compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from planish.errors import OptionError
from planish.graph import Graph, Node, Selector, Step
from planish.graph.copying import copy_graph
from planish.graph.evaluate import fold

Model = TypeVar("Model", Graph, nn.Module)
Stored = Mapping[str, frozenset[str] | None]


def stored(graph: Graph) -> Stored:
    """Name of each operation -> the tensors that it depends on; None where it also depends on an input."""
    known: dict[str, frozenset[str] | None] = {}

    def of(node: Node) -> frozenset[str] | None:
        if node.kind == "tensor":
            return frozenset({str(node.target)})
        return known.get(node.name)

    for node in graph.nodes:
        sources = [of(source) for source in node.inputs]
        known[node.name] = (
            None if not sources or None in sources else frozenset[str]().union(*(each for each in sources if each))
        )
    return known


def parameters_of(graph: Graph, where: Selector) -> set[str]:
    """The parameters that ask for gradients and that the selected operations read, through weight expressions.

    Raises:
        OptionError: There is none.
    """
    known, found = stored(graph), set[str]()
    for node in graph.select(where):
        if known[node.name] is None:
            for source in node.inputs:
                found |= {str(source.target)} if source.kind == "tensor" else known.get(source.name) or frozenset()
    ids = {id(graph.tensors[name]) for name in found if name in graph.tensors}
    chosen = {n for n in graph.parameter_names if id(graph.tensors[n]) in ids and graph.tensors[n].requires_grad}
    if not chosen:
        raise OptionError(
            f"the selector {str(where)!r} matches no operation with a parameter that may train", "where", "where='any'"
        )
    return chosen


def steps_of(graph: Graph, where: Selector) -> list[Step]:
    """One step of a plan for each parameter that trains, `(path, node, "trains NAME")`."""
    names = parameters_of(graph, where)
    readers = {str(source.target): node for node in reversed(graph.nodes) for source in node.inputs}
    shown = [name for name in graph.tensors if name in names and name in readers]
    return [Step(name.rpartition(".")[0], readers[name].name, f"trains {name}") for name in shown]


def folded(graph: Graph, trains: Iterable[str]) -> Graph:
    """The graph with every expression of tensors that do not train computed once."""
    known, trained, edit = stored(graph), set(trains), graph.edit()
    for node in graph.nodes:
        names = known[node.name]
        if names is None or names & trained or node.fx.graph is not graph.fx or not isinstance(node.value, Tensor):
            continue
        if any(known.get(user.name) is None or known[user.name] & trained for user in node.users):  # type: ignore[operator]
            value = fold(graph, node.fx)
            assert value is not None, "an expression depends on tensors only"
            edit.replace(edit.node(node.name), edit.add(f"{node.name}__frozen", value.detach()))
    return edit.done()


def tapped(graph: Graph, names: Sequence[str]) -> Graph:
    """The graph with the values of some nodes beside its output: it returns `(output, [values])`."""
    steps = copy_graph(graph.fx)
    places = {node.name: node for node in steps.nodes}
    end = steps.output_node()
    (leaves,) = end.args
    end.args = ((*leaves, *(places[name] for name in names)),)  # type: ignore[misc]
    shape = pytree.TreeSpec(tuple, None, [graph.out_spec, pytree.tree_structure([0] * len(names))])
    steps._codegen.pytree_info = steps._codegen.pytree_info._replace(out_spec=shape)  # type: ignore[attr-defined]
    return graph.replace(fx=steps)


def landmarks(student: Graph, teacher: Graph) -> list[str]:
    """Nodes at which the two can be compared: what each block of the teacher gives out, by name and equal shape.

    A block is a module of a list (`layer.3`), or a child of the model where there are no lists. Of a block whose last
    value the student has not, an earlier one that leaves the block is taken.
    """
    mine = {node.name: node for node in student.nodes}
    blocks: dict[str, list[Node]] = {}
    for node in teacher.nodes:
        if (block := _block(node)) is not None:
            blocks.setdefault(block, []).append(node)
    known, outputs, found = stored(teacher), {node.name for node in teacher.outputs}, []
    for block, nodes in blocks.items():
        leaving = [node for node in reversed(nodes) if any(_block(user) != block for user in node.users)]
        for node in leaving:
            real = isinstance(node.value, Tensor) and node.value.is_floating_point() and node.value.dim() > 1
            top = node.fx.graph is teacher.fx and known[node.name] is None and node.name not in outputs
            other = mine.get(node.name)
            if real and top and other is not None and (other.op, other.shape) == (node.op, node.shape):
                found.append(node.name)
                break
    return found


def _block(node: Node) -> str | None:
    stack = node.fx.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values() if path]
    listed = (path for path in paths if path.rpartition(".")[2].isdigit())
    return next(listed, paths[0] if paths else None)


def trained(graph: Graph, module: nn.Module, names: Iterable[str] | None = None) -> Graph:
    """`graph` with the values that a module's parameters and buffers of the same names have, or of some of them."""
    values = {**dict(module.named_parameters(remove_duplicate=False)), **dict(module.named_buffers())}
    wanted = graph.parameter_names | graph.buffers if names is None else set(names)
    fresh: dict[int, Tensor] = {}
    tensors = dict(graph.tensors)
    for name in wanted & values.keys():
        old = graph.tensors[name]
        fresh.setdefault(id(old), _like(old, values[name]))
        tensors[name] = fresh[id(old)]
    return graph.replace(tensors=tensors)


def _like(old: Tensor, value: Tensor) -> Tensor:
    own = value.detach().to(old.device, old.dtype).clone()
    return nn.Parameter(own, old.requires_grad) if isinstance(old, nn.Parameter) else own


def moved(graph: Graph, values: Mapping[str, Tensor]) -> Graph:
    """`graph` with other values for some tensors, whatever they are tied to."""
    fresh = {id(graph.tensors[name]): _like(graph.tensors[name], value) for name, value in values.items()}
    return graph.replace(tensors={name: fresh.get(id(old), old) for name, old in graph.tensors.items()})


def with_values(model: Model, values: Mapping[str, Tensor]) -> Model:
    """A graph with other values for the tensors of these names and for those tied to them; or a module, changed."""
    if isinstance(model, Graph):
        return moved(model, {name: value for name, value in values.items() if name in model.tensors})
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(remove_duplicate=False), *model.named_buffers()):
            if name in values:
                tensor.copy_(values[name])
    return model
