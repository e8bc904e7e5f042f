"""Running a graph and keeping what some of its operations give, gradients included."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx
from torch.utils import _pytree as pytree
from typing_extensions import override

from planish.graph import Graph


class Watch(fx.Interpreter):
    """Runs a graph's module and keeps what some nodes give."""

    def __init__(self, graph: Graph, names: set[str]) -> None:
        super().__init__(graph.module(), garbage_collect_values=True)
        self.graph_of, self.names = graph, names
        self.seen: dict[str, Tensor] = {}

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        """Run one item of data; the floating outputs."""
        self.seen = {}
        inputs = [
            leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in self.graph_of.flat_inputs(args, kwargs)
        ]
        outputs = pytree.tree_leaves(self.run(*inputs, enable_io_processing=False))
        return [each for each in outputs if isinstance(each, Tensor) and each.is_floating_point()]

    @override
    def run_node(self, n: fx.Node) -> Any:
        """Run one operation; a value that is watched keeps its gradient."""
        value = super().run_node(n)
        if n.name in self.names:
            self.seen[n.name] = value
            if value.requires_grad:
                value.retain_grad()
        return value
