"""A graph with exits, cut into the stages between them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, fx
from torch.utils import _pytree as pytree

from planish.errors import OptionError
from planish.graph import Graph, Node
from planish.graph.cut import ancestors, is_size, part

EXIT = "Exit"
"""The type of the modules that an exit's operations belong to."""


@dataclass(frozen=True)
class Stage:
    """What runs up to an exit, or from the last exit to the end.

    Attributes:
        graph: Takes `inputs` one by one, and returns a list: the answer `(batch, classes)`; then, but for the last
            stage, whether each row may leave with it, `(batch, 1)` bool; then `passes`.
        inputs: Names of the model's inputs and of values of earlier stages.
        passes: Names of the values that later stages take.
    """

    graph: Graph
    inputs: tuple[str, ...]
    passes: tuple[str, ...]


def stages(graph: Graph) -> list[Stage]:
    """Cut a graph at its exits: `where(sure, early, later)` between a row's early answer and its later one.

    Returns:
        The stages, first one first; none for a graph without exits.

    Raises:
        OptionError: It has exits and cannot be cut at them: its batch size is fixed and not 1, more follows an exit's
            answer, or a value that goes from stage to stage has no row for each input. Names the module.
    """
    leaves = _leaves(graph)
    if not leaves:
        return []
    batch = Node(graph, leaves[-1][0]).shape[0]  # type: ignore[index]
    if not isinstance(batch, str) and batch != 1:
        raise OptionError(
            f"rows cannot leave a batch of fixed size ({batch})",
            "the answer",
            "capture(..., dynamic={...: {0: 'batch'}})",
        )
    fixed, done = _constants(graph), set[fx.Node]()
    inputs = {node.fx for node in graph.inputs}
    wanted = []  # of each stage: what it computes, and what it takes
    for results in leaves:
        own = {node for node in ancestors(*results) - done - inputs if node not in fixed and not is_size(node)}
        done |= own
        takes = {source for node in own for source in _tensors_of(node) if source not in own | fixed}
        takes |= {node for node in results if node not in own | fixed}
        wanted.append((own, takes))
    values: dict[fx.Node, Tensor] = dict(zip((node.fx for node in graph.inputs), _flat_example(graph), strict=True))
    found = []
    for place, (results, (own, takes)) in enumerate(zip(leaves, wanted, strict=True)):
        later = set[fx.Node]().union(*(following for _, following in wanted[place + 1 :]))
        passes = [node for node in graph.fx.nodes if node in own & later]
        ordered = [node for node in graph.fx.nodes if node in takes]
        for node in (*passes, *ordered):
            _check_rows(graph, node, batch)
        stage = part(graph, own, ordered, [*results, *passes], [values[node] for node in ordered])
        given = stage(*stage.example[0])
        values.update(zip(passes, given[len(results) :], strict=True))
        found.append(Stage(stage, tuple(node.name for node in ordered), tuple(node.name for node in passes)))
    return found


def _leaves(graph: Graph) -> list[tuple[fx.Node, ...]]:
    """Of each stage its answer and whether that is sure; of the last only the answer."""
    exits = [node for node in graph.nodes if node.op == "where" and node.module_type == EXIT]
    if not exits:
        return []
    found: list[tuple[fx.Node, ...]] = []
    node = graph.outputs[0]
    while node in exits:
        sure, early, later = node.args[:3]
        found.append((early.fx, sure.fx))
        node = later
    if len(found) < len(exits) or len(graph.outputs) > 1:
        raise OptionError("an exit's answer is not the model's, so no row can leave there", exits[0].path, "exits last")
    return [*found, (node.fx,)]


def _constants(graph: Graph) -> set[fx.Node]:
    """The nodes that depend on tensors of the graph only: each stage that reads them has its own."""
    found: set[fx.Node] = set()
    for node in graph.fx.nodes:
        known = node.op == "call_function" and not is_size(node) and found.issuperset(node.all_input_nodes)
        if known or node.op == "get_attr":
            found.add(node)
    return found


def _tensors_of(node: fx.Node) -> list[fx.Node]:
    """The inputs of a node that are not sizes."""
    return [source for source in node.all_input_nodes if not is_size(source)]


def _flat_example(graph: Graph) -> list[Tensor]:
    return pytree.tree_leaves(graph.example)


def _check_rows(graph: Graph, node: fx.Node, batch: int | str) -> None:
    shape = Node(graph, node).shape
    if not shape or shape[0] != batch:
        raise OptionError(
            f"{node.name} of shape {shape} goes from one stage to the next, and has no row for each input",
            Node(graph, node).path or node.name,
            "exit at another module",
        )
