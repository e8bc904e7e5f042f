"""How much each unit of a group matters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from planish.analysis.dependency import Dependencies, Dim, Group, labels_of, leaves
from planish.compress.sites import roles, weight_of
from planish.compress.structured import surgeon
from planish.compress.sweep import check_items
from planish.compress.watch import Watch
from planish.graph import ROLES, Data, Graph, Node, Progress

Criterion = Literal["surgeon", "wanda", "taylor", "activation", "magnitude", "random"]


@dataclass(frozen=True)
class Site:
    """Where an operation sums over the units of a group: what it reads, along which axis.

    Attributes:
        reader: Name of the operation.
        source: Name of what it reads.
        axis: The axis of that.
        labels: For each index of the axis the unit that it belongs to, or -1; `(size of the axis,)`.
    """

    reader: str
    source: str
    axis: int
    labels: Tensor


def score(
    found: Dependencies, groups: Sequence[Group], by: Criterion, data: Data | None, seed: int, progress: Progress
) -> dict[Dim, Tensor]:
    """How much each unit matters, `(size,)` for each group. By "taylor" and "surgeon" groups compare as they are, by
    the others each has mean 1.

    "surgeon": what the readers' outputs lose when the unit goes and the others make up for it
    (`planish.compress.structured.surgeon`), as a share of their energy; where no layer reads the unit (queries and
    keys), the unit's share of the energy of the products, supposing that its factors are independent.
    "taylor": how far the output moves, to first order, when the unit's contribution is left out: the mean over rows of
    data of the squared sum of activation times gradient (Molchanov et al., arXiv 1906.10771, equation 8, its gate at
    what reads the unit; the gradient is that of a random projection of the output, so that no labels are needed).
    "wanda": the squared norm of the unit's weights in its readers times the mean square of what they multiply (Sun et
    al., arXiv 2306.11695, summed over the unit's column). "activation": that mean square alone. "magnitude": the
    squared norm of all parameters of the unit, each tensor weighing the same. "random": the baseline.
    """
    generator = torch.Generator().manual_seed(seed)
    if by == "random":
        return {group.dim: torch.rand(group.size, generator=generator) for group in groups}
    if by == "magnitude":
        return {group.dim: _evened(_magnitude(found, group)) for group in groups}
    sites = {group.dim: list(sums_over(found, group)) for group in groups}
    if by == "taylor":
        return _taylor(found.graph, sites, groups, data, generator, progress)
    scores = surgeon.score(found, groups, data, progress) if by == "surgeon" else {}
    rest = [group for group in groups if group.dim not in scores]
    squares = _mean_squares(found.graph, {g.dim: sites[g.dim] for g in rest}, data, progress) if rest else {}
    for group in rest:
        parts: dict[str, list[Tensor]] = {}
        for site in sites[group.dim]:
            weights = 1.0 if by == "activation" else _columns(found.graph.node(site.reader), len(site.labels))
            part = _gathered(squares[site.source, site.axis] * weights, site.labels, group.size)
            parts.setdefault(site.reader, []).append(part)
        # of a product of two activations the energy is that of both
        join = torch.prod if by == "surgeon" else torch.sum
        total = torch.stack([join(torch.stack(some), 0) for some in parts.values()]).sum(0)
        scores[group.dim] = total / total.sum().clamp_min(1e-30) if by == "surgeon" else _evened(total)
    return scores


def sums_over(found: Dependencies, group: Group) -> Iterator[Site]:
    """The products that sum over a group."""
    trace = found.trace
    for node in dict.fromkeys(each.node for each in trace.products):
        value = trace.values[node]
        results = value if isinstance(value, list) else [value or ()]
        given = {leaf for axes in results for dim in axes for leaf in leaves(dim)}
        if group.dim in given:
            continue
        for source in node.all_input_nodes:
            for axis, dim in enumerate(trace.axes(source)):
                if group.dim in set(leaves(dim)) and not trace.is_stored(source):
                    yield Site(node.name, source.name, axis, labels_of(dim, group.dim))


def _gathered(values: Tensor, labels: Tensor, size: int) -> Tensor:
    """Sums by label; what has none is left out."""
    chosen = labels >= 0
    return torch.zeros(size, dtype=values.dtype).index_add(0, labels[chosen], values[chosen])


def _evened(scores: Tensor) -> Tensor:
    return scores / scores.mean().clamp_min(1e-30)


def _magnitude(found: Dependencies, group: Group) -> Tensor:
    total = torch.zeros(group.size, dtype=torch.float64)
    for place in group.places:
        tensor = found.graph.tensors[place.tensor]
        if place.tensor in found.graph.parameter_names and tensor.ndim > 1:
            squares = tensor.detach().double().square().movedim(place.axis, 0).flatten(1).sum(1)
            axis = found.tensors[place.tensor][place.axis]
            total += _evened(_gathered(squares, labels_of(axis, group.dim), group.size))
    return total


def _columns(node: Node, size: int) -> Tensor | float:
    """Squared norm of a layer's weight for each input channel; 1 for what multiplies no weight so."""
    weight = weight_of(node) if node.op in ROLES else None
    if weight is None or weight.shape[roles(node).in_axis] != size:
        return 1.0
    return weight.detach().double().square().movedim(roles(node).in_axis, 0).flatten(1).sum(1)


def _mean_squares(
    graph: Graph, sites: Mapping[Dim, list[Site]], data: Data | None, progress: Progress
) -> dict[tuple[str, int], Tensor]:
    places = {(site.source, site.axis) for found in sites.values() for site in found}
    watch = Watch(graph, {source for source, _ in places})
    totals: dict[tuple[str, int], Tensor] = {}
    items = check_items(data, "PruneStructured")
    with torch.no_grad():
        for place, (args, kwargs) in enumerate(items):
            progress(place, len(items), "activations")
            watch(args, kwargs)
            for source, axis in places:
                squares = watch.seen[source].double().square().movedim(axis, 0).flatten(1).sum(1)
                totals[source, axis] = totals.get((source, axis), torch.zeros(())) + squares
    return totals


def _taylor(
    graph: Graph,
    sites: Mapping[Dim, list[Site]],
    groups: Sequence[Group],
    data: Data | None,
    generator: torch.Generator,
    progress: Progress,
) -> dict[Dim, Tensor]:
    watch = Watch(graph, {site.source for found in sites.values() for site in found})
    for parameter in watch.module.parameters():
        parameter.requires_grad_(True)
    totals = {group.dim: torch.zeros(group.size, dtype=torch.float64) for group in groups}
    items = check_items(data, "PruneStructured")
    for place, (args, kwargs) in enumerate(items):
        progress(place, len(items), "gradients")
        outputs = watch(args, kwargs)
        loss = sum(
            ((each * torch.randn(each.shape, generator=generator)).sum() for each in outputs), start=torch.zeros(())
        )
        loss.backward()
        watch.module.zero_grad(set_to_none=True)
        for group in groups:
            moves: list[Tensor] = []
            for site in sites[group.dim]:
                value = watch.seen[site.source]
                if value.grad is not None:
                    moves.append(_moves(value * value.grad, site, group.size))
            alike = len({len(move) for move in moves}) == 1
            for move in [torch.stack(moves).sum(0)] if alike else moves:  # what several readers lose adds up
                totals[group.dim] += move.square().sum(0)
    return totals


def _moves(products: Tensor, site: Site, size: int) -> Tensor:
    """First-order change for each row of the batch and each unit, `(rows, size)`."""
    lines = products.detach().double().movedim(site.axis, -1)
    lines = lines.flatten(1, -2).sum(1) if site.axis != 0 and lines.ndim > 2 else lines.reshape(-1, lines.shape[-1])
    chosen = site.labels >= 0
    empty = torch.zeros(len(lines), size, dtype=lines.dtype)
    return empty.index_add(1, site.labels[chosen], lines[:, chosen])
