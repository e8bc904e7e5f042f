"""Compute once what does not depend on the inputs."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from planish.graph import Data, Graph, Node, Pass, Progress, Step
from planish.graph.evaluate import base_name_of, fold


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Replace expressions over the model's tensors by their values.

    A weight expression with a `planish::cast` in it stays: its format is what targets read. So does one over
    parameters, unless asked for, since the result can no longer be trained under the user's names.

    Attributes:
        parameters: Whether to fold expressions over parameters too.
    """

    parameters: bool = False

    def plan(self, graph: Graph) -> list[Step]:
        """One step for each expression, none where there is nothing to fold."""
        return [Step(node.path, node.name, "computed once") for node in self._expressions(graph)]

    def apply(self, graph: Graph, data: Data | None, progress: Progress) -> Graph:
        """The graph with these expressions as tensors."""
        edit = graph.edit()
        known: dict[fx.Node, object] = {}
        for node in self._expressions(graph):
            value = fold(graph, node.fx, known)  # type: ignore[arg-type]
            assert value is not None, "an expression over tensors has a value"
            base = base_name_of(node.fx)
            name = f"{base}__{node.name}" if base else f"{node.name}__folded"
            edit.replace(
                edit.node(node.name), edit.add(name, value.detach().clone(), trainable=bool(base) and self.parameters)
            )
        return edit.done()

    def _expressions(self, graph: Graph) -> list[Node]:
        """Operations over tensors only, those that no other such operation reads."""
        constant: dict[Node, bool] = {}
        for node in graph.nodes:
            constant[node] = self._is_constant(graph, node, constant)
        return [
            node for node in graph.nodes if constant[node] and any(not constant.get(user, False) for user in node.users)
        ]

    def _is_constant(self, graph: Graph, node: Node, known: dict[Node, bool]) -> bool:
        if node.op == "cast" or not node.inputs or node.shape is None or not node.users:
            return False
        if node.target._schema.is_mutable if hasattr(node.target, "_schema") else True:
            return False
        return all(
            (source.kind == "tensor" and (self.parameters or source.target not in graph.parameter_names))
            or known.get(source, False)
            for source in node.inputs
        )
