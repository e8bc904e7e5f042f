"""A module captured and put in the place of a region of a graph."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, fx, nn

from planish.compress.architecture.regions import Region, dying
from planish.compress.sites import free_name
from planish.frontends import capture
from planish.graph import Editor, Graph, Node
from planish.graph.modes import COUNTER, SWITCH

_KNOWN: dict[tuple[object, ...], Graph] = {}  # a search puts the same modules in the same places again and again


def captured(module: nn.Module, region: Region, *key: object) -> Graph:
    """The graph of a module for what goes into a region, sizes varying where they do there.

    Args:
        module: Takes the region's inputs.
        region: Where it is to stand.
        key: What decides, with the shapes and types that go in, the operations of the graph.
    """
    whole = *key, *((tuple(each.shape), each.dtype) for each in region.examples), region.varying
    if whole not in _KNOWN:
        names = list(inspect.signature(module.forward).parameters)
        dynamic = {name: dict(axes) for name, axes in zip(names, region.varying, strict=False) if axes}
        _KNOWN[whole] = capture(module, region.examples, dynamic)
    return _KNOWN[whole]


def splice(edit: Editor, region: Region, inputs: Sequence[Node], part: Graph, tensors: Mapping[str, Tensor]) -> Node:
    """Put a captured module in the place of a region, which goes, and return its value.

    Args:
        edit: The graph that the region is of.
        region: What goes.
        inputs: What goes into the region by now.
        part: What comes; takes these in their order.
        tensors: Its tensors by their names in `part`. In the graph they are named as if the module stood at the
            region's path.

    Raises:
        OptionError: It gives another shape.
    """
    tensors = {**part.tensors, **tensors}
    old = edit.node(region.output.name)
    gone = {edit.node(node.name).fx for node in dying(region)}
    _free(edit, gone)
    names = _names(edit, region, tensors)
    places: dict[fx.Node, Node] = {}
    supply = iter(inputs)
    for node in part.fx.nodes:
        if node.op == "placeholder":
            places[node] = next(supply)
        elif node.op == "get_attr":
            name = str(node.target)
            places[node] = edit.add(names[name], tensors[name])
        elif node.op == "call_function":
            places[node] = _copy(edit, node, places, old, region, names)
    for name in [str(node.meta[COUNTER]) for node in part.fx.nodes if COUNTER in node.meta]:
        edit.add(names[name], tensors[name])
    new = places[part.fx.output_node().all_input_nodes[0]]
    if (new.shape, new.dtype) != (old.shape, old.dtype):
        raise region.refuse(f"it gives {old.shape}, and what would replace it {new.shape}")
    put(edit, old, new, gone)
    if edit.graph.training_refusal is None:
        edit.graph.training_refusal = part.training_refusal
    return new


def put(edit: Editor, old: Node, new: Node, gone: set[fx.Node]) -> None:
    """Let what reads one value read another, and take out what is computed for nothing."""
    edit.replace(old, new)
    for node in reversed(list(edit.graph.fx.nodes)):
        if node in gone and node.op == "call_function" and not node.users:
            edit.erase(Node(edit.graph, node))


def _free(edit: Editor, gone: set[fx.Node]) -> None:
    """Let the names go of what goes, so that what comes can have them."""
    table, counters = edit.graph.tensors, {node.meta[COUNTER] for node in gone if COUNTER in node.meta}
    for node in list(edit.graph.fx.nodes):
        if node.op != "get_attr":
            continue
        if str(node.target) in counters and not node.users:
            edit.erase(Node(edit.graph, node))
        elif node in gone and not str(node.target).endswith("__gone"):
            name = f"{node.target}__gone"
            table[name] = table.pop(str(node.target))
            node.target = name
            node._rename(f"{node.name}__gone")
    for name in counters:
        table.pop(name, None)


def _names(edit: Editor, region: Region, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    prefix = f"{region.path}." if region.path else f"{region.output.name}."
    return {name: free_name(edit.graph.tensors, prefix + name, ("",)) for name in tensors}


def _copy(
    edit: Editor, node: fx.Node, places: Mapping[fx.Node, Node], before: Node, region: Region, names: Mapping[str, str]
) -> Node:
    def place(source: fx.Node) -> Any:
        return places[source]

    args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), place)  # type: ignore[arg-type]
    made = edit.call(node.target, *args, before=before, **kwargs)  # type: ignore[arg-type]
    prefix = f"{region.path}." if region.path else ""
    inner = {
        f"{prefix}{path}": (f"{prefix}{path}", kind)
        for path, kind in (node.meta.get("nn_module_stack") or {}).values()
        if path
    }
    made.fx.meta["nn_module_stack"] = {**region.stack, **inner}
    if SWITCH in node.meta:
        made.fx.meta[SWITCH] = node.meta[SWITCH]
    if COUNTER in node.meta:
        made.fx.meta[COUNTER] = names[node.meta[COUNTER]]
    return made
