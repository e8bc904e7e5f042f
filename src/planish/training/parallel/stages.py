"""A captured model cut into the stages of a pipeline, each a graph of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, fx

from planish.analysis import analyze
from planish.errors import OptionError
from planish.graph import Graph, Node
from planish.graph.cut import ancestors, is_size, part


@dataclass(frozen=True)
class Stage:
    """What one part of a pipeline computes.

    Attributes:
        graph: Takes the values of the stage before, then `inputs`, one by one; returns a list of what the next one
            takes. The last one returns what the model does.
        inputs: The places of the model's inputs that it reads itself.
    """

    graph: Graph
    inputs: tuple[int, ...]


def cut(graph: Graph, count: int, borders: Sequence[str] = ()) -> list[Stage]:
    """The stages, first one first.

    What no gradient flows through (masks, positions) is computed by each stage that reads it, from the model's inputs;
    what a later stage reads is passed on by those between.

    Args:
        graph: The model.
        count: How many; of about equal FLOPs unless borders are given.
        borders: The paths of the modules at which the second and later stages begin.

    Raises:
        OptionError: There are fewer blocks than stages, no module of that path, or borders out of order.
    """
    order = {node: place for place, node in enumerate(graph.fx.nodes)}
    flows = _flows(graph)
    starts = [_start(graph, order, path) for path in borders] if borders else _balanced(graph, order, count)
    if sorted(set(starts)) != starts:
        raise OptionError("stages begin at modules in the order in which they run", "plan.stages", "another order")
    results = list(graph.fx.output_node().all_input_nodes)
    limits = [*starts, len(order)]
    stage_of = {node: next(k for k, limit in enumerate(limits) if order[node] < limit) for node in flows}
    inputs = [node.fx for node in graph.inputs]
    found: list[Stage] = []
    passed: list[fx.Node] = []
    for place in range(count):
        own = {node for node in flows if stage_of[node] == place}
        last = place == count - 1
        if last:
            gives = results
        else:
            later = [node for node in flows if stage_of[node] > place]
            read = {source for node in [*later, graph.fx.output_node()] for source in _read(node, flows)}
            gives = [node for node in flows if node in read and stage_of[node] <= place]
        takes = ancestors(*own, *gives, given=passed)
        needed = [node for node in inputs if node in takes]
        every = [*passed, *needed]
        made = part(graph, own, every, gives, _examples(every), graph.out_spec if last else None)
        found.append(Stage(made, tuple(inputs.index(node) for node in needed)))
        passed = gives
    return found


def _flows(graph: Graph) -> list[fx.Node]:
    """The operations that a gradient flows through, in order: those that read parameters and inputs, or such values."""
    kinds: dict[fx.Node, tuple[bool, bool]] = {}  # whether an input, and whether a parameter that trains, is behind it
    found: list[fx.Node] = []
    for node in graph.fx.nodes:
        if node.op == "get_attr":
            tensor = graph.tensors.get(str(node.target))
            kinds[node] = (False, bool(tensor is not None and tensor.requires_grad))
            continue
        sources = [kinds[source] for source in node.all_input_nodes]
        fed = node.op == "placeholder" or any(each[0] for each in sources)
        trains = any(each[1] for each in sources) and not is_size(node)
        kinds[node] = (fed, trains)
        if node.op == "call_function" and fed and trains and _is_real(node):
            found.append(node)
    return found


def _is_real(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, list | tuple) or (isinstance(value, Tensor) and value.is_floating_point())


def _read(node: fx.Node, flows: Sequence[fx.Node]) -> set[fx.Node]:
    """The values that a gradient flows through and that an operation reads, perhaps by way of what has none."""
    known, found, waiting, seen = set(flows), set[fx.Node](), list(node.all_input_nodes), set[fx.Node]()
    while waiting:
        source = waiting.pop()
        if source in seen or is_size(source):
            continue
        seen.add(source)
        if source in known:
            found.add(source)
        else:
            waiting += source.all_input_nodes
    return found


def _examples(nodes: Sequence[fx.Node]) -> list[Tensor]:
    return [node.meta["val"] for node in nodes]


def _start(graph: Graph, order: dict[fx.Node, int], path: str) -> int:
    places = [order[node.fx] for node in graph.nodes if _within(node, path) and node.fx in order]
    if not places:
        known = ", ".join(_blocks(graph)) or "none"
        raise OptionError(f"no operation comes from the module {path!r}", "plan.stages", f"blocks: {known}")
    return min(places)


def _within(node: Node, path: str) -> bool:
    return node.path == path or node.path.startswith(f"{path}.")


def _blocks(graph: Graph) -> list[str]:
    """Where a stage may begin: the modules of lists, else the children of the model, in the order in which they run."""
    listed: dict[str, None] = {}
    children: dict[str, None] = {}
    for node in graph.nodes:
        stack = [path for path, _ in (node.fx.meta.get("nn_module_stack") or {}).values() if path]
        block = next((path for path in stack if path.rpartition(".")[2].isdigit()), None)
        if block is not None:
            listed[block] = None
        if stack:
            children[stack[0]] = None
    return list(listed if len(listed) > 1 else children)


def _balanced(graph: Graph, order: dict[fx.Node, int], count: int) -> list[int]:
    """Borders at blocks such that no stage has more FLOPs than it must: a dynamic program over the blocks."""
    blocks = _blocks(graph)
    if len(blocks) < count:
        what = f"{count} stages, and the model has {len(blocks)} blocks: {', '.join(blocks)}"
        raise OptionError(what, "plan.pp", f"pp={max(1, len(blocks))}")
    if count == 1:
        return []
    starts = [_start(graph, order, path) for path in blocks]
    work = {each.node: each.work.flops for each in analyze(graph).nodes}
    sums = [0.0] * len(blocks)
    for node in graph.nodes:
        if node.fx in order:
            place = sum(start <= order[node.fx] for start in starts) - 1
            sums[max(place, 0)] += work.get(node.name, 0.0)
    best: dict[tuple[int, int], tuple[float, int]] = {}
    for stages in range(1, count + 1):
        for end in range(stages, len(blocks) + 1):
            if stages == 1:
                best[1, end] = (sum(sums[:end]), 0)
                continue
            tries = (
                (max(best[stages - 1, middle][0], sum(sums[middle:end])), middle) for middle in range(stages - 1, end)
            )
            best[stages, end] = min(tries)
    borders, end = [], len(blocks)
    for stages in range(count, 1, -1):
        end = best[stages, end][1]
        borders.append(starts[end])
    return borders[::-1]
