"""Narrower layers: `Width` keeps the first channels and neurons, `Heads` the first attention heads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from planish.analysis.dependency import Dependencies, Dim, Group, dependencies, labels_of, leaves, size_of
from planish.analysis.dependency.trace import operation
from planish.compress.structured import scores
from planish.compress.structured.choose import step_of
from planish.compress.structured.shrink import nbytes, shrink
from planish.errors import OptionError
from planish.graph import FAMILIES, Candidate, Data, Graph, Pass, Progress, Selector, Step, parse_selector

Unit = Literal["channels", "neurons", "heads", "features"]


class Mask(nn.Module):
    """Sets what does not stay to zero.

    Args:
        mask: 1 for what stays and 0 for the rest, of a shape that the value broadcasts with.
    """

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)
        self.mask: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        return x * self.mask


@dataclass(frozen=True)
class _Leading(Pass):
    """Keep the first units of each group; the rest goes from every tensor that holds them, as in `PruneStructured`.

    Several widths of one network share their weights: the narrower is the beginning of the wider, as in slimmable
    networks (Yu et al., arXiv 1812.08928).
    """

    keep: int | float = 0.5
    where: Selector | str = "any"
    sort: bool = False
    round_to: int = 1
    names: ClassVar[tuple[Unit, ...]] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", parse_selector(self.where))
        check_share(self.keep, "keep")
        if self.round_to < 1:
            raise OptionError(f"axes keep a multiple of 1 or more numbers, not {self.round_to}", "round_to")

    @property
    def chosen(self) -> tuple[Unit, ...]:
        """The kinds of units."""
        return self.names

    def plan(self, graph: Graph) -> list[Step]:
        """One step for each group: how many units there are, and how many stay."""
        found, groups = self._groups(graph)
        keep = self._keep(found, groups)
        steps, seen = [], set[str]()
        for group in groups:
            names = {place.tensor for place in group.places} - seen
            seen |= names
            before, after = (nbytes(found, names, each) for each in ({}, keep))
            left = size_of(group.dim, keep)
            action = f"{group.size} {group.kind} " + (f"to {left}" if left < group.size else "stay")
            steps.append(Step(group.path, (*group.makers, *group.readers, "")[0], action, before, after))
        return steps

    def draft(self, graph: Graph) -> Graph:
        """The narrower graph."""
        return self._narrow(graph)

    def candidates(self, graph: Graph) -> list[Candidate]:
        """A mask on what reads the units; nothing where they also run through a recurrence."""
        found, groups = self._groups(graph)
        keep = self._keep(found, groups)
        masks = []
        for group in groups:
            sites = [*scores.sums_over(found, group), *_queries(found, group)]
            if not sites or _recurs(found, group):
                return []
            stays = torch.zeros(group.size + 1)  # the last one stands for what is not of the group
            stays[keep.get(group.dim, torch.arange(group.size))] = 1
            stays[-1] = 1
            for site in sites:
                value = graph.node(site.source).value
                shape = [-1 if axis == site.axis else 1 for axis in range(value.dim())]
                mask = Mask(stays[site.labels].to(value.dtype).reshape(shape))
                masks.append(Candidate(site.source, (site.source,), mask, (site.reader,)))
        return masks

    def apply(self, graph: Graph, data: Data | None, progress: Progress) -> Graph:
        """The narrower graph."""
        return self._narrow(graph)

    def _narrow(self, graph: Graph) -> Graph:
        found, groups = self._groups(graph)
        keep = self._keep(found, groups)
        return shrink(found, keep) if keep else graph

    def _groups(self, graph: Graph) -> tuple[Dependencies, list[Group]]:
        found, units = dependencies(graph), self.chosen
        selected = {node.name for node in graph.select(parse_selector(self.where))}
        fitting = [group for group in found.groups if group.kind in units and selected.issuperset(group.makers)]
        free = [group for group in fitting if not group.refusal]
        if not free:
            reason = next((f"; {group}" for group in fitting if group.makers), "")
            raise OptionError(
                f"nothing that {str(self.where)!r} selects has {' or '.join(units)} that can go{reason}",
                "where",
                "print(planish.analysis.dependency.dependencies(graph)) lists all groups",
            )
        return found, free

    def _keep(self, found: Dependencies, groups: list[Group]) -> dict[Dim, Tensor]:
        """The units that stay of each group that loses some."""
        kept: dict[Dim, Tensor] = {}
        matter = scores.score(found, groups, "magnitude", None, 0, _silent) if self.sort else {}
        for group in groups:
            step = step_of(found, group, self.round_to)
            wanted = count_of(self.keep, group.size)
            count = min(max(-(-wanted // step) * step, step), group.size)
            if count < group.size:
                order = matter[group.dim].argsort(descending=True) if self.sort else torch.arange(group.size)
                kept[group.dim] = order[:count].sort().values
        return kept


@dataclass(frozen=True)
class Width(_Leading):
    """Keep the first channels of convolutions and neurons between linear layers; the weights stay what they were.

    What goes together is read off the graph, as for `PruneStructured`.

    Attributes:
        keep: A share of the units of each group, or their number; a group that has no more keeps all.
        where: A group gets narrower if all layers that make it are selected.
        sort: Keep the units of largest magnitude instead of the first ones.
        round_to: Axes keep a multiple of this many numbers.
        units: What gets fewer: "channels", "neurons", "heads", "features" of heads.
    """

    units: tuple[Unit, ...] = ("channels", "neurons")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "units", (self.units,) if isinstance(self.units, str) else tuple(self.units))
        unknown = [unit for unit in self.units if unit not in get_args(Unit)]
        if unknown or not self.units:
            what = f"unknown units {unknown[0]!r}" if unknown else "no units are named"
            raise OptionError(what, "units", f"some of {', '.join(get_args(Unit))}")

    @property
    def chosen(self) -> tuple[Unit, ...]:
        """The kinds of units."""
        return self.units


@dataclass(frozen=True)
class Heads(_Leading):
    """Keep the first heads of each attention: rows of queries, keys and values, and columns of what reads them.

    Attributes:
        keep: A share of the heads, or their number.
        where: An attention has fewer heads if all layers that make them are selected.
        sort: Keep the heads of largest magnitude instead of the first ones.
        round_to: Axes keep a multiple of this many numbers.
    """

    names: ClassVar[tuple[Unit, ...]] = ("heads",)


def check_share(keep: int | float, name: str) -> None:
    """Refuse what is neither a share nor a number.

    Raises:
        OptionError: It is not.
    """
    if isinstance(keep, bool) or not keep > 0 or (isinstance(keep, float) and keep > 1):
        raise OptionError(f"a share above 0 and up to 1.0, or a number from 1, not {keep}", name, f"{name}=0.5")


def count_of(keep: int | float, size: int) -> int:
    """How many of `size` stay: a share of them, 1 at least, or a number."""
    return max(1, round(keep * size)) if isinstance(keep, float) else min(keep, size)


def _queries(found: Dependencies, group: Group) -> Iterator[scores.Site]:
    """Attentions that sum over features of queries which are features of what they give, too."""
    trace = found.trace
    for node in found.graph.nodes:
        if node.op not in FAMILIES["attention"] or group.dim not in set(leaves(trace.axes(node.fx)[-1])):
            continue
        query = node.argument("query")
        axes = trace.axes(query.fx)
        if group.dim in set(leaves(axes[-1])):
            yield scores.Site(node.name, query.name, len(axes) - 1, labels_of(axes[-1], group.dim))


def _recurs(found: Dependencies, group: Group) -> bool:
    """Whether a recurrent layer reads the units that it makes: no mask from outside can reach them there."""
    layers = (each.node for each in found.trace.products if operation(each.node) in FAMILIES["recurrent"])
    values = (found.trace.values[layer] for layer in layers)
    given = (axes for value in values for axes in (value if isinstance(value, list) else [value or ()]))
    made = {leaf for axes in given for dim in axes for leaf in leaves(dim)}
    return group.dim in made


def _silent(_done: int, _total: int, _what: str) -> None:
    pass
