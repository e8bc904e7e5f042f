"""Concentrating: attention heads in coordinates of which the first say most, so that the last can go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from planish.analysis.dependency import Dependencies, dependencies, labels_of, leaves
from planish.compress.migrate import origin
from planish.compress.mix import Mix, fold_into, fold_scores, is_own, makers, matrix_of, mixable
from planish.compress.moments import damped, root
from planish.compress.sites import Site
from planish.compress.sweep import check_items
from planish.compress.watch import Watch
from planish.errors import DataError, OptionError
from planish.graph import Data, Graph, Node, Pass, Progress, Selector, Step, parse_selector

DAMPING = 1e-4
"""Added to the diagonals of moments, as a share of their means."""


@dataclass(frozen=True)
class Concentrate(Pass):
    """Mix the features inside of each attention head such that the first hold most of what the head does.

    Scores are products of queries and keys, and outputs are products of values and a projection, so that any matrix may
    go into the one as long as its inverse goes into the other. Of each head it is the one by which the product is in
    principal components, as data give it: with second moments `Q` of queries and `K` of keys about their mean (a
    constant in all keys shifts a query's scores by as much, which softmax ignores) the singular value decomposition of
    `Q^(1/2) K^(1/2)`, with `C` of what the head hands on, about its mean, and the projection's weight `W` that of
    `C^(1/2) W^T` (whitened: Wang et al., "SVD-LLM", arXiv 2403.07378, section 3.2; within heads: Meng et al., "CLOVER",
    arXiv 2411.17426). Leaving out the last features is then the best that fewer features can do.

    Outputs are equal but for the rounding of float32, and nothing is added to compute. Put it before
    `PruneStructured(units=("features",))`. Heads whose queries and keys are turned by their position (RoPE) or
    normalized, that share keys, or that one layer makes with others (query | key | value) stay as they are.

    Attributes:
        where: The layers; a pair is mixed if both are selected.
    """

    where: Selector | str = "linear"

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", parse_selector(self.where))

    def plan(self, graph: Graph) -> list[Step]:
        """One step for each pair of layers."""
        return [
            Step(pair.first.path, pair.first.name, f"{pair.size} features in principal order with {pair.second.path}")
            for pair in self._pairs(graph)
        ]

    def draft(self, graph: Graph) -> Graph:
        """The graph as it is: no size changes."""
        self._pairs(graph)
        return graph

    def apply(self, graph: Graph, data: Data | None, progress: Progress) -> Graph:
        """The graph in other coordinates; its outputs are equal."""
        pairs = self._pairs(graph)
        watch = Watch(graph, {name for pair in pairs for name in pair.names})
        moments = {name: _Moment(pair.size) for pair in pairs for name in pair.names}
        items = check_items(data, "Concentrate")
        with torch.no_grad():
            for place, (args, kwargs) in enumerate(items):
                progress(place, len(items), "activations")
                watch(args, kwargs)
                for name, moment in moments.items():
                    moment.add(watch.seen[name])
        edit = graph.edit()
        for pair in pairs:
            mix = pair.mix(moments)
            if pair.site is None:
                fold_scores(edit, pair.first, pair.second, mix)
            else:
                fold_into(edit, pair.first, pair.site, mix)
        return edit.done()

    def _pairs(self, graph: Graph) -> list[_Pair]:
        chosen = {node.name for node in graph.select(parse_selector(self.where))}
        found = dependencies(graph)
        pairs = [pair for node in graph.nodes if (pair := _scores(found, node)) is not None]
        sites = [site for site in mixable(graph, self.where) if len(site.layers) == 1]
        made = makers(graph, sites)
        for site in sites:
            attention = origin(site.source)
            maker = made.get(site.source.name)
            if maker is not None and attention.op == "scaled_dot_product_attention":
                pairs.append(_Pair(maker, site.layers[0], int(attention.value.shape[-1]), (site.source.name,), site))
        pairs = [pair for pair in pairs if {pair.first.name, pair.second.name} <= chosen]
        if not pairs:
            raise OptionError(
                f"the selector {str(self.where)!r} matches no two linear layers with heads between them",
                "where",
                "put Concentrate before Quantize; where='linear'",
            )
        order = {node.name: place for place, node in enumerate(graph.nodes)}
        return sorted(pairs, key=lambda pair: order[pair.first.name])


@dataclass(frozen=True)
class _Pair:
    """Two layers between which features of heads may be mixed.

    Attributes:
        first: The layer of the queries, or of the values.
        second: That of the keys, or the projection.
        size: Features of a head.
        names: The activations: queries and keys, `(..., heads, rows, size)`; or what heads hand on,
            `(..., heads × size)`.
        site: What the projection reads; None for queries and keys.
    """

    first: Node
    second: Node
    size: int
    names: tuple[str, ...]
    site: Site | None = None

    def mix(self, moments: Mapping[str, _Moment]) -> Mix:
        """The matrices of all heads, of a size that leaves the first layer's weights their energy."""
        found = [moments[name] for name in self.names]
        if not all(moment.is_finite for moment in found):
            raise DataError(
                "an activation is NaN or infinite on the calibration data", self.first.path, "check data and model"
            )
        if self.site is None:
            left, right = root(damped(found[0].square, DAMPING)), root(damped(found[1].centered, DAMPING))
        else:
            left = root(damped(found[0].centered, DAMPING))
            right = matrix_of(self.second).unflatten(1, (-1, self.size)).permute(1, 2, 0)
        vectors, values, _ = torch.linalg.svd(left @ right, full_matrices=False)
        values = values.clamp_min(DAMPING * values.amax(-1, keepdim=True).clamp_min(torch.finfo(values.dtype).tiny))
        forward = torch.linalg.solve(left, vectors * values.sqrt().unsqueeze(-2))
        rows = matrix_of(self.first).unflatten(0, (-1, self.size))
        gain = rows.norm(dim=(1, 2)) / (forward.mT @ rows).norm(dim=(1, 2)).clamp_min(torch.finfo(rows.dtype).tiny)
        forward = forward * torch.where(gain > 0, gain, 1.0)[:, None, None]
        return Mix(forward, torch.linalg.inv(forward).mT)


class _Moment:
    """Sums over the data of what heads hold.

    Args:
        size: Features of a head.
    """

    def __init__(self, size: int) -> None:
        self._size, self._rows = size, 0
        self._sum = self._products = torch.zeros((), dtype=torch.float64)

    def add(self, value: Tensor) -> None:
        """Count one item."""
        by_head = value.movedim(-3, 0) if value.shape[-1] == self._size else None
        heads = value.unflatten(-1, (-1, self._size)).movedim(-2, 0) if by_head is None else by_head
        rows = heads.flatten(1, -2).double()
        self._rows += rows.shape[1]
        self._sum, self._products = self._sum + rows.sum(1), self._products + rows.mT @ rows

    @property
    def is_finite(self) -> bool:
        """Whether all numbers were."""
        return bool(torch.isfinite(self._products).all())

    @property
    def square(self) -> Tensor:
        """The second moment, `(heads, size, size)` float64."""
        return self._products / self._rows

    @property
    def centered(self) -> Tensor:
        """The covariance."""
        mean = (self._sum / self._rows).unsqueeze(-1)
        return self.square - mean @ mean.mT


def _scores(found: Dependencies, node: Node) -> _Pair | None:
    """The layers of queries and keys of an attention; None where their features cannot be mixed."""
    if node.op != "scaled_dot_product_attention":
        return None
    query, key = node.args[0], node.args[1]
    first, second = origin(query), origin(key)
    if first == second or not (is_own(first) and is_own(second)):
        return None
    for layer, value in ((first, query), (second, key)):
        if value.users != (node,) or value.value.dim() < 4 or value.value.shape[-3] != query.value.shape[-3]:
            return None
        heads, features = (found.trace.axes(value.fx)[axis] for axis in (-3, -1))
        out, size = found.trace.axes(layer.fx)[-1], features.size
        places = torch.arange(heads.size * size)
        if out.size != len(places) or len(list(leaves(heads))) != 1 or len(list(leaves(features))) != 1:
            return None
        (head,), (feature,) = leaves(heads), leaves(features)
        if not torch.equal(labels_of(out, head), places // size) or not torch.equal(
            labels_of(out, feature), places % size
        ):
            return None
    return _Pair(first, second, int(query.value.shape[-1]), (query.name, key.name))
