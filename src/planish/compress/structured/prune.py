"""`PruneStructured`: take out channels, neurons, heads or layers, so that tensors really get smaller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from planish.analysis import analyze
from planish.analysis.dependency import Dependencies, Dim, Group, dependencies, size_of
from planish.compress.structured import layers, scores
from planish.compress.structured.choose import Budget, Measure, choose
from planish.compress.structured.refit import refit
from planish.compress.structured.scores import Criterion
from planish.compress.structured.shrink import nbytes, shrink
from planish.errors import OptionError
from planish.graph import Data, Graph, Pass, Progress, Selector, Step, parse_selector

Unit = Literal["channels", "neurons", "heads", "features", "layers"]
Scope = Literal["local", "global"]


@dataclass(frozen=True)
class PruneStructured(Pass):
    """Take whole channels, neurons, attention heads or residual layers out of a graph.

    What goes together is read off the graph (`planish.analysis.dependency`): every tensor that holds a unit is sliced,
    and sizes that were baked into operations are rewritten. The result computes what the graph does with the readers'
    weights for those units at zero. Groups that reach an input or output of the model, that a norm averages over, or
    that an operation cannot say more about, keep all units; `planish.analysis.dependency.dependencies(graph).refused`
    tells why.

    Attributes:
        amount: The share that goes, between 0 and 1.
        of: What is counted: "units" of the groups, "macs", or "parameters" of the whole graph.
        units: What may go: "channels" of convolutions, "neurons" between linear layers, attention "heads", "features"
            inside of heads; or "layers" alone, whole residual branches.
        by: What tells how much a unit matters: "surgeon", "wanda", "taylor", "activation" (which look at calibration
            data), "magnitude" or "random".
        where: A group is pruned if all layers that make it are selected.
        scope: "local" takes the same share of each group; "global" ranks the units of all groups, by what they matter
            for what they save.
        round_to: Axes keep a multiple of this many numbers.
        compensate: Fit the readers' weights again, by least squares on calibration data, to the outputs they had.
        seed: Of "random", and of the projection of the output in "taylor".
    """

    amount: float = 0.5
    of: Measure = "units"
    units: tuple[Unit, ...] = ("channels", "neurons", "heads")
    by: Criterion = "wanda"
    where: Selector | str = "any"
    scope: Scope = "local"
    round_to: int = 8
    compensate: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", parse_selector(self.where))
        object.__setattr__(self, "units", (self.units,) if isinstance(self.units, str) else tuple(self.units))
        if not 0 < self.amount < 1:
            raise OptionError(f"a share between 0 and 1 goes, not {self.amount}", "amount", "amount=0.5")
        for name, kind in (("of", Measure), ("by", Criterion), ("scope", Scope)):
            if getattr(self, name) not in get_args(kind):
                known = ", ".join(map(repr, get_args(kind)))
                raise OptionError(f"unknown {name} {getattr(self, name)!r}", name, f"one of {known}")
        unknown = [unit for unit in self.units if unit not in get_args(Unit)]
        if unknown or not self.units:
            what = f"unknown units {unknown[0]!r}" if unknown else "no units are named"
            raise OptionError(what, "units", f"some of {', '.join(get_args(Unit))}")
        if "layers" in self.units and (len(self.units) > 1 or self.by in ("surgeon", "wanda")):
            raise OptionError(
                "layers go in a step of their own, by 'taylor', 'activation', 'magnitude' or 'random'",
                "units, by",
                "PruneStructured(units=('layers',), by='taylor')",
            )
        if self.round_to < 1:
            raise OptionError(f"axes keep a multiple of 1 or more numbers, not {self.round_to}", "round_to")

    def plan(self, graph: Graph) -> list[Step]:
        """One step for each group, as if each lost the same share: which ones lose more, only the data tell."""
        if "layers" in self.units:
            gone = self._gone(graph, *self._branches(graph, None, _silent))
            return [Step(branch.path, branch.addition, "the residual branch goes") for branch in gone]
        found, groups = self._groups(graph)
        keep = self._even(found, groups)
        seen: set[str] = set()
        steps = []
        for group in groups:
            names = {place.tensor for place in group.places} - seen
            seen |= names
            before, after = (nbytes(found, names, each) for each in ({}, keep))
            about = "about " if self.scope == "global" else ""
            action = f"{group.size} {group.kind} to {about}{size_of(group.dim, keep)}"
            if group.dim in keep or self.scope == "global":
                steps.append(Step(group.path, (*group.makers, *group.readers, "")[0], action, before, after))
        return steps

    def draft(self, graph: Graph) -> Graph:
        """The graph with the same share of each group gone, whichever."""
        if "layers" in self.units:
            return layers.without(graph, self._gone(graph, *self._branches(graph, None, _silent)))
        found, groups = self._groups(graph)
        return shrink(found, self._even(found, groups))

    def apply(self, graph: Graph, data: Data | None, progress: Progress) -> Graph:
        """The smaller graph."""
        data = None if data is None else list(data)
        if "layers" in self.units:
            return layers.without(graph, self._gone(graph, *self._branches(graph, data, progress, self.by)))
        found, groups = self._groups(graph)
        matter = scores.score(found, groups, self.by, data, self.seed, progress)
        keep = choose(self._budget(found), groups, matter, self.scope == "global", self.round_to)
        if not self.compensate:
            return shrink(found, keep)
        lost = [group for group in groups if group.dim in keep]
        return shrink(found, keep, refit(found, lost, keep, data, progress).tensors)

    def _groups(self, graph: Graph) -> tuple[Dependencies, list[Group]]:
        found = dependencies(graph)
        chosen = {node.name for node in graph.select(parse_selector(self.where))}
        fitting = [group for group in found.groups if group.kind in self.units and chosen.issuperset(group.makers)]
        free = [group for group in fitting if not group.refusal]
        if not free:
            kept = next((group for group in fitting if group.makers), None)
            reason = f"; {kept}" if kept else ""
            raise OptionError(
                f"nothing that {str(self.where)!r} selects has {' or '.join(self.units)} that can go{reason}",
                "where, units",
                "print(planish.analysis.dependency.dependencies(graph)) lists all groups",
            )
        return found, free

    def _budget(self, found: Dependencies) -> Budget:
        return Budget(found, analyze(found.graph), self.of, self.amount)

    def _even(self, found: Dependencies, groups: list[Group]) -> dict[Dim, Tensor]:
        order = {group.dim: -torch.arange(group.size, dtype=torch.float64) for group in groups}
        return choose(self._budget(found), groups, order, False, self.round_to)

    def _branches(
        self, graph: Graph, data: Data | None, progress: Progress, by: Criterion = "random"
    ) -> tuple[list[layers.Branch], list[float]]:
        chosen = {node.name for node in graph.select(parse_selector(self.where))}
        found = [branch for branch in layers.branches(graph) if chosen.issuperset(branch.layers)]
        if not found:
            raise OptionError(f"{str(self.where)!r} selects no residual branch", "where", "where='any'")
        return found, layers.score(graph, found, by, data, self.seed, progress)

    def _gone(self, graph: Graph, found: list[layers.Branch], matter: list[float]) -> list[layers.Branch]:
        """The branches that go, those that matter least first, until the amount is met."""
        order = sorted(range(len(found)), key=matter.__getitem__)

        def first(count: int) -> list[layers.Branch]:
            chosen = set(order[:count])
            return [branch for place, branch in enumerate(found) if place in chosen]

        if self.of == "units":
            count = int(self.amount * len(found) + 1e-9)
            if not count:
                raise OptionError(
                    f"{self.amount:g} of {len(found)} residual branches is none", "amount", "a larger one"
                )
            return first(count)
        whole = _total(graph, self.of)
        for count in range(1, len(found) + 1):
            if _total(layers.without(graph, first(count)), self.of) <= (1 - self.amount) * whole + 1e-9:
                return first(count)
        raise OptionError(
            f"without any residual branch more than {1 - self.amount:.0%} of the {self.of} stay", "amount"
        )


def _total(graph: Graph, of: Measure) -> float:
    total = analyze(graph).total
    return total.macs if of == "macs" else total.parameters


def _silent(_done: int, _total: int, _what: str) -> None:
    pass
