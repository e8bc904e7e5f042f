"""The order in which units go such that the rest can make up for them best: Optimal Brain Surgeon on whole units.

Kurtić et al., "ZipLM" (arXiv 2302.04089), section 3.1: what leaving out the columns `S` of a layer's weight `W` costs
once all others have moved is `tr(W_S [(H^-1)_SS]^-1 W_S^T)`, `H` being the products of the layer's inputs. The least
goes first, then `W` and `H^-1` are updated. Where several layers read the units, their costs add up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from planish.analysis.dependency import Dependencies, Dim, Group, labels_of
from planish.compress.sites import roles, weight_of
from planish.compress.structured.refit import ROWS, is_fitted, rows_of
from planish.compress.sweep import check_items
from planish.compress.watch import Watch
from planish.graph import Data, Node, Progress

DAMPING = 0.01
"""Added to the diagonal of `H`, as a share of its mean."""
ROUNDS = 64
"""Updates for a group, at most: larger groups lose several units at a time."""


@dataclass
class _Reader:
    """One layer that reads a group.

    Attributes:
        weight: What is left of its weight, `(outputs, inputs)`.
        inverse: Of the products of its inputs, `(inputs, inputs)`.
        columns: Those of each unit that is left, `(units, columns of a unit)`.
        energy: Of its outputs.
    """

    weight: Tensor
    inverse: Tensor
    columns: Tensor
    energy: float

    def costs(self) -> Tensor:
        """Of each unit that is left, as a share of the energy of the outputs."""
        blocks = self.inverse[self.columns[:, :, None], self.columns[:, None, :]]
        parts = self.weight[:, self.columns].permute(1, 2, 0)  # units, columns of a unit, outputs
        return (parts * torch.linalg.solve(blocks, parts)).sum((1, 2)) / self.energy

    def remove(self, units: Tensor) -> None:
        """Let the other columns make up for those of some units, and forget these."""
        gone = self.columns[units].reshape(-1)
        stays = torch.ones(len(self.inverse), dtype=torch.bool)
        stays[gone] = False
        step = torch.linalg.solve(self.inverse[gone][:, gone], self.inverse[gone][:, stays])
        self.weight = self.weight[:, stays] - self.weight[:, gone] @ step
        self.inverse = self.inverse[stays][:, stays] - self.inverse[stays][:, gone] @ step
        left = torch.ones(len(self.columns), dtype=torch.bool)
        left[units] = False
        self.columns = (stays.cumsum(0) - 1)[self.columns[left]]


def score(found: Dependencies, groups: Sequence[Group], data: Data | None, progress: Progress) -> dict[Dim, Tensor]:
    """What each unit of each group costs when its turn comes, `(size,)`; groups that no layer reads are left out."""
    readers = _readers(found, groups, data, progress)
    scores: dict[Dim, Tensor] = {}
    for place, group in enumerate(groups):
        progress(place, len(groups), f"ordering {group.path}")
        if mine := readers.get(group.dim):
            scores[group.dim] = _ordered(mine, group.size)
    return scores


def _ordered(readers: list[_Reader], size: int) -> Tensor:
    scores = torch.zeros(size, dtype=torch.float64)
    left, worst = torch.arange(size), 0.0
    while len(left):
        costs = torch.stack([reader.costs() for reader in readers]).sum(0)
        chosen = costs.argsort()[: -(-size // ROUNDS)]
        for place in chosen.tolist():
            # what goes later never counts less, so that the order is kept wherever scores are compared
            worst = max(worst, float(costs[place])) * (1 + 1e-9) + 1e-30
            scores[left[place]] = worst
        for reader in readers if len(chosen) < len(left) else []:
            reader.remove(chosen)
        left = left[~torch.isin(torch.arange(len(left)), chosen)]
    return scores


def _readers(
    found: Dependencies, groups: Sequence[Group], data: Data | None, progress: Progress
) -> dict[Dim, list[_Reader]]:
    graph = found.graph
    nodes = {name: graph.node(name) for group in groups for name in group.readers}
    nodes = {name: node for name, node in nodes.items() if is_fitted(node)}
    sources = {name: node.input.name for name, node in nodes.items() if node.input is not None}
    watch, grams = Watch(graph, set(sources.values())), dict[str, Tensor]()
    items = check_items(data, "PruneStructured")
    with torch.no_grad():
        for place, (args, kwargs) in enumerate(items):
            progress(place, len(items), "activations")
            watch(args, kwargs)
            for name, source in sources.items():
                rows = rows_of(nodes[name], watch.seen[source].float())
                rows = rows[:: -(-len(rows) // ROWS)]
                grams[name] = grams.get(name, torch.zeros(())) + (rows.T @ rows).double()
    return {group.dim: _of(found, group, nodes, grams) for group in groups}


def _of(found: Dependencies, group: Group, nodes: Mapping[str, Node], grams: Mapping[str, Tensor]) -> list[_Reader]:
    made: list[_Reader] = []
    for name in group.readers:
        if name not in nodes:
            continue
        node = nodes[name]
        assert node.weight is not None
        axis = roles(node).in_axis
        labels = labels_of(found.trace.axes(node.weight.fx)[axis], group.dim)
        weight = _weight(node).movedim(axis, 1).flatten(1)
        spots = weight.shape[1] // len(labels)
        labels = labels.repeat_interleave(spots)
        counts = labels[labels >= 0].bincount(minlength=group.size)
        assert int(counts.min()) == int(counts.max()), "every unit has as many columns"
        columns = labels.argsort(stable=True)[int((labels < 0).sum()) :].reshape(group.size, -1)
        gram = grams[name]
        damped = gram + DAMPING * gram.diag().mean().clamp_min(1e-12) * torch.eye(len(gram), dtype=gram.dtype)
        energy = float(((weight @ gram) * weight).sum().clamp_min(1e-30))
        made.append(_Reader(weight, torch.linalg.inv(damped), columns, energy))
    return made


def _weight(node: Node) -> Tensor:
    weight = weight_of(node)
    assert weight is not None, "a layer that is fitted has a weight"
    return weight.detach().double()
