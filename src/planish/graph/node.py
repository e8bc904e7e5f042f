"""`Node`: a readable view of one step of a graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import fx

from planish.formats import Format
from planish.graph.branches import readers, source
from planish.graph.ops import ROLES, base_name
from planish.graph.shapes import Size, shape_of

if TYPE_CHECKING:
    from planish.graph.graph import Graph

Kind = Literal["input", "tensor", "call", "output", "branch"]
_KINDS: dict[str, Kind] = {"placeholder": "input", "get_attr": "tensor", "call_function": "call", "output": "output"}


@dataclass(frozen=True, eq=False)
class Node:
    """One input, tensor, operation or output of a `Graph`. Holds no state of its own."""

    graph: Graph
    fx: fx.Node

    @property
    def name(self) -> str:
        """The node's unique name in its graph."""
        return self.fx.name

    @property
    def kind(self) -> Kind:
        """What the node is; a "branch" is the body of a `torch.cond`."""
        if self.fx.op == "get_attr" and self.fx.target in self.graph.branches:
            return "branch"
        return _KINDS[self.fx.op]

    @property
    def op(self) -> str:
        """The operation's base name ("linear", "cast"), or the kind for what is no operation."""
        return base_name(self.fx.target) if self.fx.op == "call_function" else self.kind

    @property
    def target(self) -> Any:
        """The operator overload or function that is called; a dotted name for a tensor."""
        return self.fx.target

    @property
    def args(self) -> tuple[Any, ...]:
        """Positional arguments, with `Node` where another node's value goes in."""
        return tuple(self._view(value) for value in self.fx.args)

    @property
    def kwargs(self) -> Mapping[str, Any]:
        """Keyword arguments, likewise."""
        return {key: self._view(value) for key, value in self.fx.kwargs.items()}

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The nodes whose values this one reads, each once."""
        return tuple(dict.fromkeys(self._seen(node) for node in self.fx.all_input_nodes))

    @property
    def users(self) -> tuple[Node, ...]:
        """The nodes that read this one's value, in branches too."""
        return tuple(Node(self.graph, node) for node in readers(self.fx, self.graph.calls, self.graph.branches))

    @property
    def value(self) -> Any:
        """The fake value: a tensor without storage, a symbolic size, or a structure of them."""
        return self.fx.meta.get("val")

    @property
    def shape(self) -> tuple[Size, ...] | None:
        """The output's shape, dynamic sizes by name; None for what is not one tensor."""
        return shape_of(self.value, self.graph.symbols)

    @property
    def dtype(self) -> torch.dtype | None:
        """The output's dtype; None for what is not one tensor."""
        return self.value.dtype if isinstance(self.value, torch.Tensor) else None

    @property
    def tensor(self) -> torch.Tensor | None:
        """The real tensor that a node of kind "tensor" stands for."""
        return self.graph.tensors.get(str(self.fx.target)) if self.fx.op == "get_attr" else None

    @property
    def path(self) -> str:
        """Path of the module that the node came from ("encoder.layer.0.output"); "" is the model itself."""
        stack = self.fx.meta.get("nn_module_stack")
        return next(reversed(stack.values()))[0] if stack else ""

    @property
    def module_type(self) -> str:
        """The class name of that module ("Linear")."""
        stack = self.fx.meta.get("nn_module_stack")
        kind = next(reversed(stack.values()))[1] if stack else ""
        return (kind if isinstance(kind, str) else kind.__name__).rpartition(".")[2]

    @property
    def source(self) -> str:
        """The line of the user's program that made the node, as `file:line`; "" if unknown."""
        return source_line(self.fx.meta.get("stack_trace") or "")

    @property
    def format(self) -> Format | None:
        """The number format of a `planish::cast`; None for any other node."""
        return Format.parse(self.argument("format")) if self.op == "cast" else None

    @property
    def input(self) -> Node | None:
        """The activation that meets the weight, by role; None for an operation without weight."""
        return self._role("input")

    @property
    def weight(self) -> Node | None:
        """The node that feeds the weight: a tensor, or the last step of its expression."""
        return self._role("weight")

    @property
    def bias(self) -> Node | None:
        """The node that feeds the bias, if there is one."""
        return self._role("bias")

    def argument(self, name: str) -> Any:
        """The argument of that name in the operator's schema, its default where it was not given; None if unknown."""
        schema = getattr(self.fx.target, "_schema", None)
        for position, argument in enumerate(schema.arguments if schema else ()):
            if argument.name == name:
                if name in self.fx.kwargs:
                    return self._view(self.fx.kwargs[name])
                given = not argument.kwarg_only and position < len(self.fx.args)
                return self._view(self.fx.args[position]) if given else argument.default_value
        return None

    def _role(self, role: str) -> Node | None:
        roles = ROLES.get(self.op) if self.kind == "call" else None
        position = getattr(roles, role) if roles else None
        if position is None or position >= len(self.fx.args):
            return None
        value = self.args[position]
        return value if isinstance(value, Node) else None

    def _view(self, value: Any) -> Any:
        return fx.map_arg(value, self._seen)  # pyright: ignore[reportArgumentType]

    def _seen(self, node: fx.Node) -> Node:
        return Node(self.graph, source(node, self.graph.calls))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Node) and other.fx is self.fx

    def __hash__(self) -> int:
        return hash(self.fx)

    def __repr__(self) -> str:
        return f"Node({self.name}: {self.op} {self.shape} {self.path!r})"


def source_line(stack_trace: str) -> str:
    """The innermost `file:line` of a stack trace that is not inside torch."""
    frames = [line.strip() for line in stack_trace.splitlines() if line.strip().startswith("File ")]
    own = [frame for frame in frames if "/torch/" not in frame] or frames
    if not own:
        return ""
    file, _, rest = own[-1].removeprefix('File "').partition('", line ')
    return f"{file}:{rest.partition(',')[0]}"
