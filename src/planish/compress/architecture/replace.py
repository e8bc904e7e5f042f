"""`Replace`: another operator in the place of an operation or a module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from torch import Tensor, nn

from planish.compress.architecture.operators import KEEP, make, operators
from planish.compress.architecture.regions import FINDERS, Of, Region, nbytes, parameters, stored
from planish.compress.architecture.splice import captured, splice
from planish.errors import OptionError, UnknownName
from planish.graph import Candidate, Data, Graph, Node, Pass, Progress, Selector, Step, parse_selector
from planish.graph.shapes import example


@dataclass(frozen=True)
class Replace(Pass):
    """Put another operator in the place of each selected operation or module.

    The new one goes from the shape that came in to the shape that went out; strides and paddings follow. It starts
    untrained, its parameters named as if it stood where the old one did.

    Attributes:
        by: What comes: a registered operator ("identity", "zero", "linear", "conv3x3", "average-pool", "relu"…), or
            "keep", which leaves what is there.
        where: What goes.
        of: "operations" replaces each operation that `where` selects; "modules" everything that came from a module
            whose path it selects, if one value goes in and one comes out.
        seed: Of the new parameters.
    """

    by: str
    where: Selector | str = "linear | conv"
    of: Of = "operations"
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", parse_selector(self.where))
        if self.by != KEEP and self.by not in operators:
            raise UnknownName("operator", self.by, (*operators, KEEP), "by")
        if self.of not in get_args(Of):
            raise OptionError(f"unknown {self.of!r}", "of", "'operations' or 'modules'")

    def plan(self, graph: Graph) -> list[Step]:
        """One step for each place: what comes, and the bytes of parameters before and after."""
        steps = []
        for region in self._regions(graph):
            before = nbytes(list(stored(region).values()))
            after = before if self.by == KEEP else nbytes(parameters(self._module(region)))
            action = "stays as it is" if self.by == KEEP else f"{_called(region)} becomes {self.by}"
            steps.append(Step(region.path, region.output.name, action, before, after))
        return steps

    def draft(self, graph: Graph) -> Graph:
        """The graph with the new operators."""
        return self._replaced(graph)

    def candidates(self, graph: Graph) -> list[Candidate]:
        """At each place the operator itself, on what goes in there."""
        found = []
        for region in self._regions(graph):
            source = region.output if self.by == KEEP else region.inputs[0]
            module = nn.Identity() if self.by == KEEP else self._module(region)
            found.append(Candidate(region.output.name, (source.name,), module))
        return found

    def apply(self, graph: Graph, data: Data | None, progress: Progress) -> Graph:
        """The graph with the new operators, untrained."""
        return self._replaced(graph)

    def _regions(self, graph: Graph) -> list[Region]:
        return FINDERS[self.of](graph, parse_selector(self.where))

    def _module(self, region: Region) -> nn.Module:
        return make(self.by, region.examples[0], example(region.output), self.seed, region.place)

    def _replaced(self, graph: Graph) -> Graph:
        if self.by == KEEP:
            self._regions(graph)
            return graph
        edit, moved = graph.edit(), dict[str, Node]()
        for region in self._regions(graph):
            inputs = [moved.get(node.name) or edit.node(node.name) for node in region.inputs]
            module = self._module(region)
            tensors: dict[str, Tensor] = {**dict(module.named_parameters()), **dict(module.named_buffers())}
            part = captured(module, region, self.by, tuple(example(region.output).shape))
            moved[region.output.name] = splice(edit, region, inputs, part, tensors)
        return edit.done()


def _called(region: Region) -> str:
    return region.output.op if len(region.nodes) == 1 else "it"
