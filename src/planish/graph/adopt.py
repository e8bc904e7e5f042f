"""Branches of `torch.cond` as torch exports them, made part of a graph: every name unique, every tensor an operand of
the call, and the module paths that torch drops restored from the names of the parameters.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from planish.graph.branches import COND, bring, calls_of, source
from planish.graph.inline import inline_regions


def adopt_branches(exported: fx.GraphModule, model: nn.Module) -> dict[str, fx.GraphModule]:
    """The bodies of all branches by name, those in other branches too. `exported` and its bodies are changed."""
    inline_regions(exported)
    bodies = _named(exported, "")
    calls = calls_of(exported.graph, bodies)
    for name, body in bodies.items():
        for node in body.graph.find_nodes(op="get_attr"):
            if node.target not in bodies:
                value = attribute(body, str(node.target))
                lifted = _lift(exported, f"{name}_{str(node.target).replace('.', '_').lstrip('_')}", value, node)
                node.replace_all_uses_with(bring(lifted, body.graph, calls, bodies))
                body.graph.erase_node(node)
    modules = dict(model.named_modules(remove_duplicate=False))
    for body in bodies.values():
        around = _outermost(body.graph, calls).meta.get("nn_module_stack") or {}
        for node in body.graph.nodes:
            if node.op == "call_function":
                reads = [] if node.target is COND else node.all_input_nodes
                sources = [source(read, calls) for read in reads]
                paths = [str(read.target).rpartition(".")[0] for read in sources if read.op == "get_attr"]
                path = max((path for path in paths if path in modules), key=len, default="")
                kind = type(modules[path])
                own = {f"branch.{path}": (path, f"{kind.__module__}.{kind.__qualname__}")} if path else {}
                node.meta["nn_module_stack"] = {**around, **own}
    return bodies


def _named(module: fx.GraphModule, prefix: str) -> dict[str, fx.GraphModule]:
    """The bodies below a module under names of their own; steps and references are renamed to fit."""
    found: dict[str, fx.GraphModule] = {}
    for node in module.graph.find_nodes(op="get_attr"):
        if isinstance(body := attribute(module, str(node.target)), fx.GraphModule):
            name = f"{prefix}{node.target}".replace(".", "_")
            inline_regions(body)
            for step in body.graph.nodes:
                if step.op == "call_function":
                    step._rename(f"{name}_{step.name}")
            node.target = name
            found |= {name: body, **_named(body, f"{name}_")}
    return found


def _lift(exported: fx.GraphModule, name: str, value: torch.Tensor, like: fx.Node) -> fx.Node:
    exported.register_buffer(name, value, persistent=False)
    first = next(iter(exported.graph.nodes))
    with exported.graph.inserting_before(first):
        lifted = exported.graph.create_node("get_attr", name, name=name)
    lifted.meta["val"] = like.meta.get("val")
    return lifted


def _outermost(body: fx.Graph, calls: dict[fx.Graph, fx.Node]) -> fx.Node:
    call = calls[body]
    return _outermost(call.graph, calls) if call.graph in calls else call


def attribute(root: nn.Module, name: str) -> Any:
    """What a dotted name stands for."""
    value: Any = root
    for part in name.split("."):
        value = getattr(value, part)
    return value
