"""`Depth`: the first residual branches of a stack stay, the others go."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from planish.compress.architecture.width import check_share, count_of
from planish.compress.structured.layers import Branch, branches, without
from planish.errors import OptionError
from planish.graph import Candidate, Data, Graph, Pass, Progress, Selector, Step, parse_selector


@dataclass(frozen=True)
class Depth(Pass):
    """Keep the first residual branches of a stack: of each other one, `x + f(x)` becomes `x`.

    Several depths of one network share their weights (Cai et al., "Once-for-All", arXiv 1908.09791). A branch that
    changes the shape is none: of a stage of a residual network the first block stays.

    Attributes:
        keep: A share of the branches, or their number, which may be 0.
        where: A branch belongs to the stack if all layers in it are selected.
    """

    keep: int | float = 0.5
    where: Selector | str = "any"

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", parse_selector(self.where))
        if self.keep != 0 or isinstance(self.keep, bool | float):
            check_share(self.keep, "keep")

    def plan(self, graph: Graph) -> list[Step]:
        """One step for each branch: whether it stays."""
        stay, go = self._parted(graph)
        steps = [Step(branch.path, branch.addition, "the residual branch stays") for branch in stay]
        return steps + [Step(branch.path, branch.addition, "the residual branch goes") for branch in go]

    def draft(self, graph: Graph) -> Graph:
        """The shallower graph."""
        return without(graph, self._parted(graph)[1])

    def candidates(self, graph: Graph) -> list[Candidate]:
        """Instead of each branch that goes, what it would have been added to."""
        return [Candidate(branch.addition, (branch.skip,), nn.Identity()) for branch in self._parted(graph)[1]] or [
            Candidate(branch.addition, (branch.addition,), nn.Identity()) for branch in self._parted(graph)[0][:1]
        ]

    def apply(self, graph: Graph, data: Data | None, progress: Progress) -> Graph:
        """The shallower graph."""
        return without(graph, self._parted(graph)[1])

    def _parted(self, graph: Graph) -> tuple[list[Branch], list[Branch]]:
        """The branches that stay and those that go."""
        chosen = {node.name for node in graph.select(parse_selector(self.where))}
        found = [branch for branch in branches(graph) if chosen.issuperset(branch.layers)]
        if not found:
            raise OptionError(f"{str(self.where)!r} selects no residual branch", "where", "where='any'")
        count = count_of(self.keep, len(found))
        return found[:count], found[count:]
