"""A graph run with candidates in it, step by step: what supernets are held to."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from planish.graph import Candidate, Graph


class _Relaxed(fx.Interpreter):
    def __init__(self, graph: Graph, candidates: list[Candidate]) -> None:
        super().__init__(graph.module())
        self.candidates, self.raw, self.latest = candidates, dict[str, Any](), dict[tuple[str, str], Any]()

    def run_node(self, n: fx.Node) -> Any:
        for source in n.all_input_nodes:
            self.env[source] = self.latest.get(
                (source.name, n.name), self.latest.get((source.name, ""), self.env[source])
            )
        value = self.raw[n.name] = super().run_node(n)
        for candidate in self.candidates:
            if candidate.node == n.name:
                with torch.no_grad():
                    given = candidate.module(*(self._now(name, candidate.node) for name in candidate.inputs))
                self.latest.update({(n.name, reader): given for reader in candidate.readers or ("",)})
        return value

    def _now(self, name: str, reader: str) -> Any:
        if name == reader:
            return self.raw[name]
        return self.latest.get((name, reader), self.latest.get((name, ""), self.raw[name]))


def relaxed(graph: Graph, candidates: list[Candidate], *args: Any) -> list[torch.Tensor]:
    """The outputs of the graph with all these candidates in their places."""
    for candidate in candidates:
        candidate.module.eval()
    runner = _Relaxed(graph, candidates)
    runner.garbage_collect_values = False
    with torch.no_grad():
        return pytree.tree_leaves(runner.run(*args, enable_io_processing=False))
