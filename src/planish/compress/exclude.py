"""The fewest layers at full precision such that a metric falls by no more than it may."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from planish import metrics
from planish.compress.sites import sites, weight_name
from planish.compress.sweep import check_items
from planish.errors import OptionError
from planish.graph import Data, Graph, Node, Progress

LOWER_IS_BETTER = frozenset({"mse", "perplexity"})
ITEMS = 8
"""Items of data that layers are ranked on."""

Quantizer = Callable[[Graph, list[Node], Data | None, Progress], Graph]
Unit = tuple[Node, ...]


@dataclass(frozen=True)
class _Judge:
    """How far the metric of a graph is below that of the original."""

    metric: str
    original: Graph
    data: Data

    def drop(self, graph: Graph) -> float:
        judge = metrics.get(self.metric)
        fall = judge(self.original, self.data).value - judge(graph, self.data).value
        return -fall if self.metric in LOWER_IS_BETTER else fall


def fewest(
    quantize: Quantizer,
    graph: Graph,
    layers: list[Node],
    data: Data | None,
    metric: str,
    most: float,
    progress: Progress,
) -> Graph:
    """Quantize as many of the layers as `most` allows.

    Layers are ranked by what the metric loses when one alone (with those that share its input) is quantized; then
    bisection finds how many of the most sensitive must stay as they are.

    Raises:
        OptionError: Even with no layer quantized the metric falls by more.
    """
    items = check_items(data, "max_drop")
    rows = list(data or ())
    full = quantize(graph, layers, data, progress)
    judge = _judge(graph, metric, rows)
    if judge.drop(full) <= most:
        return full
    units = _units(layers)
    few = _judge(graph, metric, rows[:: -(-len(items) // ITEMS)])
    losses: dict[Unit, float] = {}
    for place, unit in enumerate(units):
        progress(place, len(units), f"sensitivity of {unit[0].path or unit[0].name}")
        losses[unit] = few.drop(restored(full, graph, [other for other in units if other != unit]))
    ranked = sorted(units, key=losses.__getitem__, reverse=True)
    low, high = 1, len(ranked)  # with `high` units kept it is met, or nothing meets it
    while low < high:
        middle = (low + high) // 2
        progress(low, high, f"keeping {middle} of {len(ranked)}")
        if judge.drop(restored(full, graph, ranked[:middle])) <= most:
            high = middle
        else:
            low = middle + 1
    if high == len(ranked):
        raise OptionError(
            f"{metric} falls by more than {most:g} however few layers are quantized",
            "max_drop",
            "allow more, or other formats",
        )
    return restored(full, graph, ranked[:high])


def restored(full: Graph, graph: Graph, units: list[Unit]) -> Graph:
    """The quantized graph `full` with some of its layers again as they are in `graph`."""
    edit = full.edit()
    for layer in (layer for unit in units for layer in unit):
        node, before = edit.node(layer.name), graph.node(layer.name)
        for source, old in ((node.weight, before.weight), (node.input, before.input)):
            if source is not None and source.op == "cast" and old is not None and old.op != "cast":
                edit.replace_input(node, source, edit.node(old.name))
        for name in filter(None, (weight_name(layer), layer.bias and str(layer.bias.target))):
            if name in graph.tensors and edit.graph.tensors[name] is not graph.tensors[name]:
                edit.set_tensor(name, graph.tensors[name].detach())
    return edit.done()


def _units(layers: list[Node]) -> list[Unit]:
    shared = [site.layers for site in sites(layers)]
    alone = [(layer,) for layer in layers if not any(layer in unit for unit in shared)]
    return [*shared, *alone]


def _judge(graph: Graph, metric: str, rows: list[tuple[object, ...]]) -> _Judge:
    fidelity = metric in metrics.FIDELITY
    if not fidelity and any(len(row) != 3 for row in rows):
        raise OptionError(
            f"{metric} needs targets, and the calibration data has none", "metric", "metric='mean_cosine'"
        )
    return _Judge(metric, graph, metrics.with_reference(graph, rows) if fidelity else rows)
