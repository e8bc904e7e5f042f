"""`Permute`: put channels into an order in which zeros in a pattern cost less, without changing what is computed."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from planish.analysis.dependency import Dependencies, Dim, Group, dependencies, labels_of
from planish.compress.pruning.matrix import groups, has_inputs, inputs, to_matrix
from planish.compress.pruning.sparsity import Sparsity
from planish.compress.sites import Site, free_name, roles, sites, weight_of, weighted
from planish.compress.structured.shrink import shrink
from planish.compress.sweep import Read, sweep
from planish.errors import OptionError
from planish.graph import Data, Graph, Node, Pass, Progress, Selector, Step, parse_selector

aten = torch.ops.aten
LONGEST = 4
"""Neighbors of a run: two runs of 4 can be divided anew in 35 ways, two of 8 in 6,435."""
AT_ONCE = 1 << 22
"""Numbers that are sorted at a time."""


@dataclass(frozen=True)
class Permute(Pass):
    """Reorder input channels, such that N:M zeros (2 of 4 neighbors) take what matters least.

    Pool and Yu, "Channel Permutations for N:M Sparsity" (NeurIPS 2021). Neurons between linear layers, and channels
    between convolutions, are put out in another order by the layers that make them: nothing is left to compute. In
    front of other linear layers their input is gathered. What matters is a weight's square times the mean square of its
    input, or the weight's square alone without calibration data. Runs are paired at random, and each pair is divided
    anew in the best of all ways, again and again: their search of stripe groups of two, without its escapes.

    Put it before Prune and Quantize: weights that are masked or cast already keep their order.

    Attributes:
        sparsity: The pattern to come, "2:4", with runs of at most 4.
        online: Whether to gather the inputs of layers that no others can reorder: of the residual stream, and across
            attention heads. Without it, features are reordered inside of heads.
        where: The layers that will have the pattern.
        sweeps: How many times all runs are paired.
        seed: Of the pairs.
    """

    sparsity: Sparsity | str = "2:4"
    online: bool = True
    where: Selector | str = "linear | conv"
    sweeps: int = 40
    seed: int = 0

    def __post_init__(self) -> None:
        given = self.sparsity
        object.__setattr__(self, "sparsity", Sparsity.parse(given) if isinstance(given, str) else given)
        object.__setattr__(self, "where", parse_selector(self.where))
        if not 1 < self._sparsity.run <= LONGEST:
            what = f"{self.sparsity} is no pattern of runs of 2 to {LONGEST} neighbors"
            raise OptionError(what, "sparsity", "sparsity='2:4'")
        if self.sweeps < 1:
            raise OptionError(f"runs are paired 1 time or more, not {self.sweeps}", "sweeps", "sweeps=40")

    @property
    def _sparsity(self) -> Sparsity:
        assert isinstance(self.sparsity, Sparsity)
        return self.sparsity

    def plan(self, graph: Graph) -> list[Step]:
        """One step for each set of channels that gets another order."""
        _, inside, gathered = self._places(graph)
        steps = [
            Step(group.path, readers[0].name, f"{group.size} {group.kind} reordered for {self.sparsity}")
            for group, readers in inside
        ]
        return steps + [
            Step(site.path, site.layers[0].name, f"{_width(site)} inputs gathered in an order for {self.sparsity}")
            for site in gathered
        ]

    def draft(self, graph: Graph) -> Graph:
        """The graph with inputs gathered in the order that they have: an order changes no size."""
        _, _, gathered = self._places(graph)
        return _gather(graph, [(site, torch.arange(_width(site))) for site in gathered])

    def apply(self, graph: Graph, data: Data | None, progress: Progress) -> Graph:
        """The reordered graph; its outputs are equal."""
        found, inside, gathered = self._places(graph)
        readers = [
            *(reader for _, some in inside for reader in some),
            *(each for site in gathered for each in site.layers),
        ]
        squares, count = _mean_squares(graph, readers, data), len(inside) + len(gathered)
        orders: dict[Dim, Tensor] = {}
        for place, (group, some) in enumerate(inside):
            progress(place, count, group.path)
            matters = [_matters(reader, squares)[:, self._runs(found, group, reader)].flatten(0, 1) for reader in some]
            orders[group.dim] = best_order(torch.cat(matters), self._sparsity, self.sweeps, self.seed)
        chosen: list[tuple[Site, Tensor]] = []
        for place, site in enumerate(gathered, len(inside)):
            progress(place, count, site.path)
            matters = torch.cat([_matters(layer, squares) for layer in site.layers])
            chosen.append((site, best_order(matters, self._sparsity, self.sweeps, self.seed)))
        progress(count, count, "")
        return _gather(shrink(found, orders) if orders else graph, chosen)

    def _places(self, graph: Graph) -> tuple[Dependencies, list[tuple[Group, list[Node]]], list[Site]]:
        """The channels that may change places, with the layers in whose rows they are neighbors, and the activations
        that are gathered."""
        found = dependencies(graph)
        layers = {node.name: node for node in weighted(graph, self.where) if _is_plain(node)}
        inside: list[tuple[Group, list[Node]]] = []
        for group in found.free:
            some = [layers[name] for name in group.readers if name in layers]
            some = [reader for reader in some if len(self._runs(found, group, reader))]
            whole = not any(labels.min() < 0 or len(labels) > group.size for labels in self._labels(found, group, some))
            plain = all(_is_plain(graph.node(name)) for name in (*group.makers, *group.readers))
            if some and plain and (whole or not self.online):
                inside.append((group, some))
        taken = {reader.name for _, some in inside for reader in some}
        rest = [node for node in layers.values() if node.op in ("linear", "addmm") and node.name not in taken]
        gathered = [site for site in sites(rest) if self.online and self._may_gather(site)]
        if not inside and not gathered:
            raise OptionError(
                f"the selector {str(self.where)!r} matches no layer whose input channels could change places",
                "where",
                "put Permute before Prune and Quantize",
            )
        return found, inside, gathered

    def _may_gather(self, site: Site) -> bool:
        own = all(layer.weight is not None and set(layer.weight.users) == {layer} for layer in site.layers)
        return own and _width(site) % self._sparsity.run == 0

    def _labels(self, found: Dependencies, group: Group, readers: list[Node]) -> list[Tensor]:
        """Which of the group's channels each input channel of its readers is."""
        weights = [(reader, reader.weight) for reader in readers]
        axes = [found.trace.axes(weight.fx)[roles(reader).in_axis] for reader, weight in weights if weight is not None]
        return [labels_of(dim, group.dim) for dim in axes]

    def _runs(self, found: Dependencies, group: Group, reader: Node) -> Tensor:
        """Where the channels stand in a row of the reader's weight, `(times, size)`; none where not side by side."""
        (labels,) = self._labels(found, group, [reader])
        places, none = (labels >= 0).nonzero()[:, 0], torch.zeros(0, group.size, dtype=torch.int64)
        if group.size % self._sparsity.run or len(places) % group.size:
            return none
        places = places.view(-1, group.size)
        beside = torch.equal(places - places[:, :1], torch.arange(group.size).expand_as(places))
        ordered = torch.equal(labels[places], torch.arange(group.size).expand_as(places))
        return places if beside and ordered and not bool((places[:, 0] % self._sparsity.run).any()) else none


def best_order(matters: Tensor, sparsity: Sparsity, sweeps: int = 40, seed: int = 0) -> Tensor:
    """The order of the columns in which runs of neighbors keep most.

    Args:
        matters: Of each weight, `(rows, columns)`, whole runs of columns.
        sparsity: The pattern.
        sweeps: How many times all runs are paired.
        seed: Of the pairs.

    Returns:
        The number of the column that comes to each place, `(columns,)`; the present order where none is better.
    """
    run, generator = sparsity.run, torch.Generator().manual_seed(seed)
    present = torch.arange(matters.shape[1])
    # from runs that each have a column of every size: large ones side by side would take each other's places
    spread = matters.sum(0).argsort(descending=True, stable=True).view(run, -1).T.flatten()
    order = max(present, spread, key=lambda each: _kept(matters[:, each].unflatten(1, (-1, run)), sparsity.kept).sum())
    ways = _ways(run)
    for _ in range(sweeps if len(present) > run else 0):
        runs = order.view(-1, run)
        pairs = torch.randperm(len(runs), generator=generator)[: len(runs) // 2 * 2].view(-1, 2)
        columns = runs[pairs].flatten(1)
        best = torch.cat([
            _kept(matters[:, some][:, :, ways], sparsity.kept).sum((0, 3)).argmax(1)
            for some in columns.split(max(1, AT_ONCE // (len(matters) * ways.numel())))
        ])  # fmt: skip
        runs[pairs] = columns.gather(1, ways[best].flatten(1)).unflatten(1, (2, run))
        order = runs.flatten()
    return order


def _ways(run: int) -> Tensor:
    """All ways to divide two runs into two, the one that they come in first: `(ways, 2, run)`."""
    both = range(2 * run)
    firsts = [(0, *rest) for rest in itertools.combinations(both[1:], run - 1)]
    return torch.tensor([[first, [each for each in both if each not in first]] for first in firsts])


def _kept(matters: Tensor, count: int) -> Tensor:
    """The sum of the largest along the last axis, by exchanges of neighbors: the axis is short, the others are long."""
    parts = list(matters.unbind(-1))
    for end in range(len(parts) - 1, 0, -1):
        for at in range(end):
            first, second = parts[at], parts[at + 1]
            parts[at], parts[at + 1] = torch.maximum(first, second), torch.minimum(first, second)
    return torch.stack(parts[:count]).sum(0)


def _matters(layer: Node, squares: dict[str, Tensor]) -> Tensor:
    """Of each weight of a layer, `(rows, input channels)`: a convolution has a row for each place of its kernel."""
    weight = weight_of(layer)
    assert weight is not None
    matrix = to_matrix(layer, weight.detach()).float().square()
    if layer.name in squares:
        matrix = matrix * squares[layer.name]
    return matrix.reshape(-1, int(weight.shape[roles(layer).in_axis]))


def _mean_squares(graph: Graph, layers: list[Node], data: Data | None) -> dict[str, Tensor]:
    """Of each column of each layer's weight, what it multiplies; nothing without data."""
    found: dict[str, Tensor] = {}

    def visit(node: Node, read: Read) -> None:
        assert node.input is not None
        parts = [inputs(node, batch.actual)[0] for batch in read(node.input)]
        found[node.name] = sum((part.square().sum(0) for part in parts), torch.zeros(())) / sum(map(len, parts))

    if data is not None:
        sweep(graph, data, visit, [layer.name for layer in layers], "Permute", casts=False)
    return found


def _width(site: Site) -> int:
    return int(site.source.value.shape[-1])


def _gather(graph: Graph, orders: list[tuple[Site, Tensor]]) -> Graph:
    """The graph with activations in another order, and with their readers' weights in it, too."""
    edit = graph.edit()
    for site, order in orders:
        first, source = edit.node(site.layers[0].name), edit.node(site.source.name)
        stem = free_name(edit.graph.tensors, f"{site.path}.input", ["__order"])
        value = edit.call(aten.index_select.default, source, -1, edit.add(f"{stem}__order", order), before=first)
        for layer in site.layers:
            edit.replace_input(edit.node(layer.name), source, value)
            assert layer.weight is not None
            name, axis = str(layer.weight.target), roles(layer).in_axis
            edit.set_tensor(name, edit.graph.tensors[name].detach().index_select(axis, order).contiguous())
    return edit.done()


def _is_plain(node: Node) -> bool:
    """Whether the order of a layer's input channels is its own affair."""
    weight, source = node.weight, node.input
    plain = weight is not None and weight.kind == "tensor" and source is not None and source.op != "cast"
    return plain and has_inputs(node) and groups(node) == 1
