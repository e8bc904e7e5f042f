"""`Editor`: the one way to make a graph out of another.

edit = graph.edit()
scale = edit.add("fc.weight__scale", scale)
edit.cast(linear.weight, linear, int8, (scale,))
smaller = edit.done()
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch._dispatch.python import enable_python_dispatcher
from torch._guards import detect_fake_mode
from torch._subclasses import FakeTensorMode

from planish.errors import GraphError
from planish.formats import Format
from planish.graph.assemble import read_by
from planish.graph.branches import bring, copied, depth, enclosing, prune, steps_of
from planish.graph.copying import copy_graph
from planish.graph.node import Node

if TYPE_CHECKING:
    from planish.graph.graph import Graph

INHERITED = ("nn_module_stack", "stack_trace")


class Editor:
    """A copy of a graph that can be changed until `done()`. Tensors are shared with the original."""

    def __init__(self, graph: Graph) -> None:
        bodies = copied(graph.branches, fx.GraphModule)
        self.graph = graph.replace(fx=copy_graph(graph.fx), tensors=dict(graph.tensors), branches=bodies)
        self._fx, self._bodies, self._calls = self.graph.fx, bodies, self.graph.calls
        self._places = {node.name: node for node in (*self._fx.nodes, *steps_of(self._fx, bodies))}
        self._persistent = set(graph.buffers)
        self._fake: FakeTensorMode = (
            detect_fake_mode([node.meta.get("val") for node in self._fx.nodes]) or FakeTensorMode()
        )

    def node(self, name: str) -> Node:
        """The copy's node of that name."""
        return Node(self.graph, self._places[name])

    def add(self, name: str, tensor: torch.Tensor, trainable: bool = False) -> Node:
        """Register a tensor under a dotted name ("encoder.fc1.weight__scale") and return its node.

        It becomes a parameter if `trainable`, else a buffer. A name that exists is replaced only by an equal tensor.
        """
        known = self.graph.tensors.get(name)
        if known is not None and known is not tensor and not torch.equal(known, tensor):
            raise GraphError(f"the tensor {name!r} exists already with other values", name, "choose another name")
        for node in self._fx.nodes:
            if node.op == "get_attr" and node.target == name:
                return Node(self.graph, node)
        value = (
            nn.Parameter(tensor, requires_grad=True) if trainable and not isinstance(tensor, nn.Parameter) else tensor
        )
        self.graph.tensors[name] = value
        if not isinstance(value, nn.Parameter):
            self._persistent.add(name)
        first = next(node for node in self._fx.nodes if node.op != "get_attr")
        with self._fx.inserting_before(first):
            node = self._fx.create_node("get_attr", name, name=re.sub(r"\W", "_", name))
        node.meta["val"] = self._fake.from_tensor(value, static_shapes=True)
        return self._known(node)

    def call(
        self, target: Callable[..., Any], *args: Any, before: Node, path: str | None = None, **kwargs: Any
    ) -> Node:
        """Insert an operation in front of a node; it inherits that node's module path unless `path` names another.

        Where the node stands in a branch, what does not depend on the branch is computed before the branch is chosen.

        Raises:
            GraphError: The operation does not take values of these shapes.
        """
        at = self._mine(before)
        scopes: list[fx.Graph] = []
        fx.map_arg(self._unwrap((args, kwargs)), lambda node: scopes.append(node.graph))
        scope = max(scopes, key=lambda graph: depth(graph, self._calls), default=at.graph)
        fx_args, fx_kwargs = self._unwrap((args, kwargs), scope)
        with scope.inserting_before(enclosing(at, scope, self._calls)):
            node = scope.call_function(target, fx_args, fx_kwargs)
        node.meta = {key: at.meta[key] for key in INHERITED if key in at.meta}
        if path is not None:
            node.meta["nn_module_stack"] = self._stack(path)
        self._evaluate(node)
        return self._known(node)

    def cast(
        self,
        source: Node,
        user: Node,
        format: Format,  # noqa: A002  # the field's own word
        parameters: Sequence[Node],
        gradient: str = "straight-through",
    ) -> Node:
        """Put a `planish::cast` on the one use of `source` by `user`, and return it."""
        args = [source, list(parameters), str(format), gradient]
        cast = self.call(torch.ops.planish.cast.default, *args, before=user)
        self.replace_input(user, source, cast)
        return cast

    def replace(self, old: Node, new: Node) -> None:
        """Let every user of `old` read `new` instead; `new` itself may still read `old`."""
        gone = self._mine(old)
        target = bring(self._mine(new), gone.graph, self._calls, self._bodies)
        gone.replace_all_uses_with(target, delete_user_cb=lambda user: user is not target)

    def replace_input(self, user: Node, old: Node, new: Node) -> None:
        """Let one user of `old` read `new` instead."""
        reader = self._mine(user)
        before, after = (bring(self._mine(node), reader.graph, self._calls, self._bodies) for node in (old, new))
        reader.replace_input_with(before, after)

    def set_args(self, node: Node, *args: Any, **kwargs: Any) -> None:
        """Give an operation other arguments, and recompute its fake value."""
        target = self._mine(node)
        target.args, target.kwargs = self._unwrap((args, kwargs), target.graph)
        self._evaluate(target)

    def set_tensor(self, name: str, tensor: torch.Tensor) -> None:
        """Give a registered tensor other values of the same shape; a parameter stays one."""
        old = self.graph.tensors[name]
        if old.shape != tensor.shape:
            raise GraphError(f"{name!r} has shape {tuple(old.shape)}, not {tuple(tensor.shape)}", name)
        new = nn.Parameter(tensor, old.requires_grad) if isinstance(old, nn.Parameter) else tensor
        for tied in [other for other, value in self.graph.tensors.items() if value is old]:
            self.graph.tensors[tied] = new

    def erase(self, node: Node) -> None:
        """Remove a node that nobody reads."""
        gone = self._mine(node)
        gone.graph.erase_node(gone)

    def done(self) -> Graph:
        """The edited graph: operations and tensors that nobody reads are gone, and it is well formed."""
        prune(self._fx, self._bodies)
        tensors = read_by(self._fx, self.graph.tensors)
        buffers = frozenset(self._persistent & tensors.keys())
        bodies = copied(self._bodies, fx.GraphModule)
        return self.graph.replace(fx=copy_graph(self._fx), tensors=tensors, buffers=buffers, branches=bodies).verify()

    def _mine(self, node: Node) -> fx.Node:
        return node.fx if node.fx.graph is self._fx or node.fx.graph in self._calls else self._places[node.name]

    def _known(self, node: fx.Node) -> Node:
        stem, count = node.name, 0
        while self._places.setdefault(node.name, node) is not node:  # a name is unique among all branches
            count += 1
            node._rename(f"{stem}_{count}")
        return Node(self.graph, node)

    def _unwrap(self, value: Any, scope: fx.Graph | None = None) -> Any:
        """Nodes as fx nodes, as what they are called in `scope` if one is given."""
        if isinstance(value, Node):
            node = self._mine(value)
            return node if scope is None else bring(node, scope, self._calls, self._bodies)
        if isinstance(value, list | tuple):
            return type(value)(self._unwrap(item, scope) for item in value)
        return {key: self._unwrap(item, scope) for key, item in value.items()} if isinstance(value, dict) else value

    def _stack(self, path: str) -> dict[str, tuple[str, str]]:
        for node in steps_of(self._fx, self._bodies):
            stack = node.meta.get("nn_module_stack")
            if stack and next(reversed(stack.values()))[0] == path:
                return dict(stack)
        raise GraphError(f"no operation of the graph comes from module {path!r}", path)

    def _evaluate(self, node: fx.Node) -> None:
        args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), lambda source: source.meta["val"])
        try:
            with torch.no_grad(), self._fake, enable_python_dispatcher():
                node.meta["val"] = node.target(*args, **kwargs)  # type: ignore[operator]
        except (RuntimeError, TypeError, ValueError) as error:
            raise GraphError(f"{node.name} ({node.target}) does not take these values: {error}") from error
