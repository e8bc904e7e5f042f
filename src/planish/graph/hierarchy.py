"""The user's module tree back: one graph cut at the borders of the calls that the user's program made.

Each module that was called becomes a module whose forward runs its own steps and calls its submodules by name, so that
hooks fire, and FSDP or a pipeline can take a layer as a unit.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MethodType
from typing import Any

import torch
from torch import fx, nn
from torch.fx.graph import _PyTreeCodeGen

from planish.errors import PlanishError
from planish.graph.modes import SWITCH, switch
from planish.graph.ops import base_name


@dataclass(frozen=True)
class Frame:
    """One call of a module: torch's name of the call, the module's path, and its class."""

    key: str
    path: str
    kind: str


Chain = tuple[Frame, ...]


@dataclass
class Body:
    """The graph of one call under construction.

    Attributes:
        path: Path of the module.
        graph: Its steps.
        places: What each value of the whole graph is called in here.
        reads: The values of the whole graph that are passed in, in order.
        gives: The values that others read, in order.
    """

    path: str
    graph: fx.Graph = field(default_factory=fx.Graph)
    places: dict[fx.Node, fx.Node] = field(default_factory=dict)
    reads: list[fx.Node] = field(default_factory=list)
    gives: list[fx.Node] = field(default_factory=list)


class Part(nn.Module):
    """A module of the user's model: does its own steps, and calls its submodules."""

    def __init__(self, attributes: Mapping[str, Any], graph: fx.Graph) -> None:
        super().__init__()
        self.meta: dict[str, Any] = {}
        self.graph = graph
        for name in sorted(attributes, key=lambda name: name.count(".")):  # a module before what lies in it
            path, _, leaf = name.rpartition(".")
            register(submodule(self, path), leaf, attributes[name])
        self.recompile()

    def recompile(self) -> None:
        """Make `forward` do what the graph says."""
        runner = fx.GraphModule(self, self.graph)  # for its code only, which reads everything from `self`
        if isinstance(self.graph._codegen, _PyTreeCodeGen):
            self._in_spec, self._out_spec = runner._in_spec, runner._out_spec
        self.forward = MethodType(type(runner).forward, self)
        self.graph.owning_module = None  # the runner would keep alive parameters that FSDP has replaced

    def train(self, mode: bool = True) -> Part:
        """Switch to training (or evaluation) mode.

        Raises:
            ModelError: The graph was captured for evaluation only, or its two modes differ by more than arguments.
        """
        refusal = self.meta.get("training_refusal")
        if mode and isinstance(refusal, PlanishError):
            raise refusal
        super().train(mode)
        if switch(self.graph, mode):
            self.recompile()
        return self


@cache
def _part_of_class(name: str) -> type[Part]:
    """Named as the user's class, so that a printed tree reads like the user's, and so that an export names it."""
    return type(name, (Part,), {})


class Cutter:
    """Cuts a graph into modules, over a table of the tensors (and branches) that it reads."""

    def __init__(self, graph: fx.Graph, values: Mapping[str, Any]) -> None:
        self._graph, self._values = graph, values
        self._chains = _chains(graph)
        self._modules: dict[str, Part] = {}
        self._names: dict[int, list[str]] = {}
        for name, value in values.items():
            self._names.setdefault(id(value), []).append(name)

    def tree(self) -> Part:
        """The whole model as a tree of modules."""
        body = Body("")
        for node in self._graph.nodes:
            if node.op == "placeholder":
                body.places[node] = body.graph.node_copy(node)
        steps = [node for node in self._graph.nodes if node.op == "call_function"]
        self._fill(body, steps, depth=0)
        body.graph.node_copy(self._graph.output_node(), lambda node: self._place(body, node))
        body.graph.set_codegen(copy.copy(self._graph._codegen))
        return self._module(body, _root_kind(steps))

    def _call(self, steps: list[fx.Node], depth: int) -> Body:
        """The graph of one call, `depth` calls below the model's own."""
        inside = set(steps)
        body = Body(self._chains[steps[0]][depth - 1].path)
        body.gives = [node for node in steps if any(user not in inside for user in node.users)]
        for source in (source for node in steps for source in node.all_input_nodes):
            if source not in inside and source not in body.places and self._own(body, source) is None:
                body.places[source] = body.graph.placeholder(source.name)
                body.reads.append(source)
        self._fill(body, steps, depth)
        results = [body.places[node] for node in body.gives]
        body.graph.output(results[0] if len(results) == 1 else tuple(results))
        return body

    def _fill(self, body: Body, steps: list[fx.Node], depth: int) -> None:
        """Append steps to a graph, those of deeper calls as calls of modules."""
        for item in self._items(steps, depth):
            if isinstance(item, fx.Node):
                body.places[item] = body.graph.node_copy(item, lambda node: self._place(body, node))
                continue
            inner, frame = self._call(item, depth + 1), self._chains[item[0]][depth]
            if frame.path not in self._modules:
                self._modules[frame.path] = self._module(inner, frame.kind)
            elif not _equal(self._modules[frame.path].graph, inner.graph):
                self._fill(body, item, depth + 1)  # one module that computes two different things: in line
                continue
            target = frame.path.removeprefix(f"{body.path}.") if body.path else frame.path
            args = tuple(self._place(body, node) for node in inner.reads)
            result = body.graph.create_node("call_module", target, args, name=f"{frame.path}.out".replace(".", "_"))
            for index, given in enumerate(inner.gives):
                one = result if len(inner.gives) == 1 else body.graph.call_function(operator.getitem, (result, index))
                body.places[given] = one

    def _items(self, steps: list[fx.Node], depth: int) -> list[fx.Node | list[fx.Node]]:
        """The steps in order, with those of one deeper call together."""
        items: list[fx.Node | list[fx.Node]] = []
        frame = None
        for node in steps:
            chain = self._chains[node]
            inner = chain[depth] if len(chain) > depth else None
            if inner is None:
                early = _is_shared(node) and items and isinstance(items[-1], list)
                if early and not any(source in items[-1] for source in node.all_input_nodes):  # pyright: ignore
                    items.insert(-1, node)  # an edit put it among the steps of its first reader
                    continue
                items.append(node)
            elif inner == frame and isinstance(items[-1], list):
                items[-1].append(node)
            else:
                items.append([node])
            frame = inner
        return items

    def _own(self, body: Body, node: fx.Node) -> str | None:
        """A tensor's name within the module whose graph this is; None for what is not its own."""
        if node.op != "get_attr":
            return None
        value = self._values[str(node.target)]
        if not isinstance(value, torch.Tensor) or not body.path:
            return str(node.target)
        own = (name for name in self._names[id(value)] if name.startswith(f"{body.path}."))
        return next((name.removeprefix(f"{body.path}.") for name in own), None)

    def _place(self, body: Body, node: fx.Node) -> fx.Node:
        if node not in body.places:
            name = self._own(body, node)
            assert name is not None, "what is no tensor of the module was computed or passed in"
            body.places[node] = body.graph.create_node("get_attr", name)
            body.places[node].meta = dict(node.meta)
        return body.places[node]

    def _module(self, body: Body, kind: str) -> Part:
        attributes: dict[str, Any] = {}
        for node in body.graph.nodes:
            path = f"{body.path}.{node.target}" if body.path else str(node.target)
            if node.op == "call_module":
                attributes[str(node.target)] = self._modules[path]
            elif node.op == "get_attr":
                attributes[str(node.target)] = self._values.get(path, self._values.get(str(node.target)))
        return _part_of_class(kind)(attributes, body.graph)


def _chains(graph: fx.Graph) -> dict[fx.Node, Chain]:
    """The calls in which each step stands, outermost first; the model's own is left out."""
    chains: dict[fx.Node, Chain] = {}
    for node in reversed(graph.nodes):
        if node.op == "call_function":
            readers = [chains[user] for user in node.users if user in chains]
            shared = _is_shared(node) and 0 < len(readers) == len(node.users)
            chains[node] = _around(node, readers) if shared else _stack(node)
    return chains


def _around(node: fx.Node, readers: list[Chain]) -> Chain:
    """The innermost call around all readers; the step's own where it reads what one of these calls computes."""
    common = _common(readers)
    reach = len(common) + 1
    inner = {chain[:reach] for chain in map(_stack, node.all_input_nodes) if len(chain) >= reach}
    return _stack(node) if any(chain[:reach] in inner for chain in readers) else common


def _stack(node: fx.Node) -> Chain:
    """The calls around a step, as far as each module lies within the one that calls it."""
    chain: list[Frame] = []
    for key, (path, kind) in (node.meta.get("nn_module_stack") or {}).items():
        if path and chain and not path.startswith(f"{chain[-1].path}."):
            break
        if path:
            chain.append(Frame(key, path, _class_name(kind)))
    return tuple(chain)


def _is_shared(node: fx.Node) -> bool:
    """Whether several calls may share a step: a size or a cast."""
    return base_name(node.target) == "cast" or not isinstance(node.meta.get("val"), torch.Tensor | list | tuple)


def _common(chains: Iterable[Chain]) -> Chain:
    first, *rest = chains
    length = next((i for i, frame in enumerate(first) if any(c[i : i + 1] != (frame,) for c in rest)), len(first))
    return first[:length]


def _class_name(kind: Any) -> str:
    return (kind if isinstance(kind, str) else kind.__name__).rpartition(".")[2]


def _root_kind(steps: Iterable[fx.Node]) -> str:
    stacks = (node.meta.get("nn_module_stack") or {} for node in steps)
    return next((_class_name(kind) for stack in stacks for path, kind in stack.values() if not path), "Net")


def _equal(one: fx.Graph, other: fx.Graph) -> bool:
    """Whether two graphs do the same steps in the same order."""

    def steps(graph: fx.Graph) -> list[tuple[Any, ...]]:
        place: Any = {node: f"%{index}" for index, node in enumerate(graph.nodes)}
        rows: list[tuple[Any, ...]] = []
        for node in graph.nodes:
            target = None if node.op == "placeholder" else node.target
            arguments = fx.map_arg((node.args, dict(node.kwargs)), place.__getitem__)
            rows.append((node.op, target, repr(arguments), node.meta.get(SWITCH)))
        return rows

    return steps(one) == steps(other)


def register(module: nn.Module, name: str, value: nn.Module | torch.Tensor) -> None:
    """Give a module a submodule, parameter or buffer, unless it has one of that name."""
    if name in {*module._modules, *module._parameters, *module._buffers}:
        return
    if isinstance(value, nn.Module):
        module.add_module(name, value)
    elif isinstance(value, nn.Parameter):
        module.register_parameter(name, value)
    else:
        module.register_buffer(name, value)


def submodule(root: nn.Module, path: str) -> nn.Module:
    """The module at a path, made where there is none."""
    for name in path.split(".") if path else ():
        if name not in root._modules:
            root.add_module(name, nn.Module())
        root = root.get_submodule(name)
    return root


def number(module: nn.Module) -> None:
    """Make a list of each module that only holds numbered ones, as it was in the user's model."""
    for name, child in list(module.named_children()):
        number(child)
        count = len(child._modules)
        if type(child) is nn.Module and count and set(child._modules) == set(map(str, range(count))):
            module._modules[name] = nn.ModuleList([child.get_submodule(str(index)) for index in range(count)])
