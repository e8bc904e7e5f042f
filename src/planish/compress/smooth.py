"""Smoothing: move the outliers of an activation into the weights that read it."""

# ruff: noqa: A001  (`format` is the word for it everywhere else)

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from planish.compress.expression import scaled_by
from planish.compress.migrate import Change, migrate, producers, shifts
from planish.compress.ranges import find_range
from planish.compress.sites import Site, placed_on_activation, roles, sites, weighted
from planish.compress.sweep import Read, sweep
from planish.errors import DataError, OptionError
from planish.formats import Format, get, int8, uint8
from planish.graph import Data, Graph, Node, Pass, Progress, Selector, Step, parse_selector
from planish.graph.evaluate import fold

ALPHAS = tuple(step / 20 for step in range(8, 20))
WORTH = 0.95
"""What centering must leave of the error to be worth an addition."""
AWQ = tuple(step / 20 for step in range(1, 20))
ROWS = 2048
"""Rows of an activation that `alpha="auto"` judges each half of the data by."""


@dataclass(frozen=True)
class Smooth(Pass):
    """Divide each channel of an activation by a scale, and multiply the weights that read it by the same.

    SmoothQuant (Xiao et al., arXiv 2211.10438): the scale of a channel is `max|x|**alpha / max|w|**(1 - alpha)`,
    normalized to a geometric mean of 1. For models of which only the weights will be quantized (`activations=None`) it
    is that of AWQ (Lin et al., arXiv 2306.00978): `mean|x|**alpha`, its largest and smallest normalized. Exact but for
    the rounding of float32. Where that leaves less error, each channel is centered too (Wei et al., "Outlier
    Suppression+", arXiv 2304.09145), for which the biases of its readers make up. The division goes into
    the layer norm or the linear layer (also through attention, for values) that makes the activation where nothing else
    reads it, and is otherwise one multiplication (and addition) in front of the readers. Put it before Quantize.

    Attributes:
        alpha: How much of the difficulty moves to the weights, 0 to 1; "auto" tries several for each activation
            and keeps what gives the least error of the outputs once quantized, on other items of data than those that
            the scales come from; an activation that none makes better on both halves of the data is left as it is.
        where: The linear layers.
        weights: The format that "auto" supposes of weights.
        activations: The format that "auto" supposes of activations; None if they will not be quantized.
    """

    alpha: float | Literal["auto"] = "auto"
    where: Selector | str = "linear"
    weights: Format | str = int8
    activations: Format | str | None = uint8

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", get(self.weights))
        object.__setattr__(self, "activations", None if self.activations is None else get(self.activations))
        object.__setattr__(self, "where", parse_selector(self.where))
        if self.alpha != "auto" and not (isinstance(self.alpha, int | float) and 0 <= self.alpha <= 1):
            raise OptionError(f"alpha is a number from 0 to 1, or 'auto', not {self.alpha!r}", "alpha", "alpha='auto'")

    def plan(self, graph: Graph) -> list[Step]:
        """One step for each activation, saying where the division goes."""
        found = self._sites(graph)
        folded = producers(graph, found)
        steps = []
        for site in found:
            maker = folded.get(site.source.name)
            place = f"folded into {maker.path or maker.name}" if maker is not None else "one multiplication"
            steps.append(Step(site.path, site.layers[0].name, f"input smoothed, {place}"))
        return steps

    def apply(self, graph: Graph, data: Data | None, progress: Progress) -> Graph:
        """The smoothed graph; its outputs are equal."""
        found = {site.layers[0].name: site for site in self._sites(graph)}
        makers = producers(graph, found.values())
        changes: dict[str, Change | None] = {}

        def visit(node: Node, read: Read) -> None:
            progress(len(changes), len(found), node.path)
            site = found[node.name]
            may_shift = shifts(site, makers.get(site.source.name)) and self._centers
            changes[node.name] = self._change(site, [batch.exact for batch in read(site.source)], may_shift)

        sweep(graph, data, visit, found, "Smooth", casts=False)
        return migrate(graph, [(found[name], change) for name, change in changes.items() if change is not None])

    @property
    def _centers(self) -> bool:
        """Whether the format of activations holds numbers on both sides of zero, so that they may be centered."""
        format = None if self.activations is None else get(self.activations)
        return self.alpha == "auto" and format is not None and (format.is_affine or format.element.minimum < 0)

    def _sites(self, graph: Graph) -> list[Site]:
        linear = [node for node in weighted(graph, self.where) if node.op in ("linear", "addmm")]
        found = [site for site in sites(linear) if all(_is_plain(layer, site) for layer in site.layers)]
        if not found:
            raise OptionError(
                f"the selector {str(self.where)!r} matches no linear layer with a weight of its own, not yet quantized",
                "where",
                "put Smooth before Quantize",
            )
        return found

    def _change(self, site: Site, values: list[Tensor], may_shift: bool) -> Change | None:
        items = [value.reshape(-1, value.shape[-1]).float() for value in values]
        if not all(bool(torch.isfinite(rows).all()) for rows in items):
            raise DataError(
                "an activation is NaN or infinite on the calibration data", site.path, "check data and model"
            )
        weight = torch.cat([_columns(layer) for layer in site.layers])
        if self.alpha != "auto":
            return Change(self._smoothing(_extent(items), weight, float(self.alpha)))
        plain = self._chosen(site, items, weight, shifted=False)
        centered = self._chosen(site, items, weight, shifted=True) if may_shift else _NOTHING
        best, shifted = (centered, True) if centered.error < WORTH * plain.error else (plain, False)
        if best.alpha is None:
            return None
        extent = _extent(items)
        shift = extent.middle if shifted else None
        return Change(self._smoothing(extent.less(shift), weight, best.alpha), shift)

    def _smoothing(self, extent: _Extent, weight: Tensor, alpha: float) -> Tensor:
        return smoothing(extent.peak, weight, alpha) if self.activations is not None else awq(extent.mean, alpha)

    def _chosen(self, site: Site, items: list[Tensor], weight: Tensor, shifted: bool) -> _Choice:
        """The alpha with the least error on items that its scales do not come from, each half of the items in turn;
        None if smoothing is not better on both halves."""
        if len(items) == 1:
            items = [items[0][::2], items[0][1::2]]
        halves = [items[::2], items[1::2]]
        alphas = ALPHAS if self.activations is not None else AWQ
        totals: dict[float | None, float] = dict.fromkeys((None, *alphas), 0.0)
        worse: set[float | None] = set()
        for fitted, judged in (halves, halves[::-1]):
            extent, rows = _extent(fitted), torch.cat(judged)
            sample = rows[torch.linspace(0, len(rows) - 1, min(ROWS, len(rows))).long()]
            exact = sample @ weight.T
            plain = self._error(site, extent, sample, weight, exact, torch.ones(weight.shape[1]))
            totals[None] += plain
            if shifted:
                sample, exact, extent = (
                    sample - extent.middle,
                    exact - extent.middle @ weight.T,
                    extent.less(extent.middle),
                )
            for alpha in alphas:
                error = self._error(site, extent, sample, weight, exact, self._smoothing(extent, weight, alpha))
                totals[alpha] += error
                worse |= {alpha} if error >= plain else set()
        return min((_Choice(alpha, error) for alpha, error in totals.items() if alpha not in worse), key=_Choice.key)

    def _error(
        self, site: Site, extent: _Extent, sample: Tensor, weight: Tensor, exact: Tensor, scale: Tensor
    ) -> float:
        """Variance of what quantizing changes in the layers' outputs; the mean is left to bias correction."""
        inputs = sample / scale
        if self.activations is not None:
            activation = placed_on_activation(get(self.activations))
            parameters = None
            if not activation.is_dynamic:
                bounds = torch.stack([extent.low, extent.high]) / scale
                low, high = find_range([bounds], activation, "minmax", 100, site.path)
                parameters = activation.parameters(low=low, high=high)
            inputs = activation.cast(inputs, parameters)
        format = get(self.weights)
        difference = inputs @ (format.per_channel(0) if format.block is None else format).cast(weight * scale).T - exact
        return float((difference - difference.mean(0)).square().sum())


@dataclass(frozen=True)
class _Choice:
    """An alpha, or None for no smoothing, with the error that it leaves."""

    alpha: float | None
    error: float

    def key(self) -> float:
        return self.error


_NOTHING = _Choice(None, math.inf)


@dataclass(frozen=True)
class _Extent:
    """Of each channel of an activation, `(channels,)`; whatever the scale, the extremes stay the extremes."""

    low: Tensor
    high: Tensor
    mean: Tensor

    @property
    def middle(self) -> Tensor:
        return (self.low + self.high) / 2

    def less(self, shift: Tensor | None) -> _Extent:
        return self if shift is None else _Extent(self.low - shift, self.high - shift, self.mean)

    @property
    def peak(self) -> Tensor:
        return torch.maximum(-self.low, self.high)


def _extent(items: list[Tensor]) -> _Extent:
    count = sum(len(rows) for rows in items)
    low, high = (torch.stack(ends) for ends in zip(*(rows.aminmax(dim=0) for rows in items), strict=True))
    mean = torch.stack([rows.abs().sum(0) for rows in items]).sum(0) / count
    return _Extent(low.amin(0), high.amax(0), mean)


def awq(mean: Tensor, alpha: float) -> Tensor:
    """The scale of each channel by AWQ from the mean `|x|` of each channel.

    It is the inverse of what the paper calls a scale of the weights: here activations are divided by it.
    """
    scale = mean.clamp_min(1e-5) ** alpha
    return scale / (scale.amax() * scale.amin()).sqrt()


def smoothing(peak: Tensor, weight: Tensor, alpha: float) -> Tensor:
    """The scale of each channel, from the largest `|x|` of each channel and `weight`, `(outputs, channels)`."""
    peak = peak.clamp_min(1e-5)
    scale = (peak**alpha / weight.abs().amax(0).clamp_min(1e-5) ** (1 - alpha)).clamp_min(1e-5)
    return scale / scale.log().mean().exp()


def _is_plain(layer: Node, site: Site) -> bool:
    weight = layer.weight
    return weight is not None and scaled_by(weight) is not None and all(user in site.layers for user in weight.users)


def _columns(layer: Node) -> Tensor:
    assert layer.weight is not None
    tensor = fold(layer.graph, layer.weight.fx)
    assert tensor is not None
    tensor = tensor.detach().float()
    return tensor if roles(layer).in_axis == 1 else tensor.T
