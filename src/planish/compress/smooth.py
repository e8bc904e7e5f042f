"""Smoothing: move the outliers of an activation into the weights that read it."""

# ruff: noqa: A001  (`format` is the word for it everywhere else)

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from planish.compress.migrate import migrate, producers
from planish.compress.ranges import find_range
from planish.compress.sites import Site, placed_on_activation, roles, sites, weighted
from planish.compress.sweep import Read, sweep
from planish.errors import DataError, OptionError
from planish.formats import Format, get, int8, uint8
from planish.graph import Data, Graph, Node, Pass, Progress, Selector, Step, parse_selector

ALPHAS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
ROWS = 512
"""Rows of an activation that `alpha="auto"` looks at."""


@dataclass(frozen=True)
class Smooth(Pass):
    """Divide each channel of an activation by a scale, and multiply the weights that read it by the same.

    SmoothQuant (Xiao et al., arXiv 2211.10438): the scale of a channel is `max|x|**alpha / max|w|**(1 - alpha)`,
    normalized to a geometric mean of 1. Exact but for the rounding of float32. The division goes into the layer norm or
    the linear layer (also through attention, for values) that makes the activation where nothing else reads it, and is
    otherwise one multiplication in front of the readers. Put it before Quantize.

    Attributes:
        alpha: How much of the difficulty moves to the weights, 0 to 1; "auto" tries several for each activation,
            and none, and keeps what gives the least error of the outputs once quantized.
        where: The linear layers.
        weights: The format that "auto" supposes of weights.
        activations: The format that "auto" supposes of activations.
    """

    alpha: float | Literal["auto"] = "auto"
    where: Selector | str = "linear"
    weights: Format | str = int8
    activations: Format | str = uint8

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", get(self.weights))
        object.__setattr__(self, "activations", get(self.activations))
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
        scales: dict[str, Tensor] = {}

        def visit(node: Node, read: Read) -> None:
            progress(len(scales), len(found), node.path)
            site = found[node.name]
            scales[node.name] = self._scale(site, [batch.exact for batch in read(site.source)])

        sweep(graph, data, visit, found, "Smooth", casts=False)
        return migrate(graph, [(found[name], scale) for name, scale in scales.items() if not _is_one(scale)])

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

    def _scale(self, site: Site, values: list[Tensor]) -> Tensor:
        rows = torch.cat([value.reshape(-1, value.shape[-1]).float() for value in values])
        if not bool(torch.isfinite(rows).all()):
            raise DataError(
                "an activation is NaN or infinite on the calibration data", site.path, "check data and model"
            )
        weight = torch.cat([_columns(layer) for layer in site.layers])
        bounds = torch.stack(rows.aminmax(dim=0))  # whatever the scale, the extremes of a channel stay its extremes
        peak = bounds.abs().amax(0)
        if self.alpha != "auto":
            return smoothing(peak, weight, float(self.alpha))
        sample = rows[torch.linspace(0, len(rows) - 1, min(ROWS, len(rows))).long()]
        exact = sample @ weight.T
        choices = [torch.ones(rows.shape[1]), *(smoothing(peak, weight, alpha) for alpha in ALPHAS)]
        return min(choices, key=lambda scale: self._error(site, bounds, sample, weight, exact, scale))

    def _error(self, site: Site, bounds: Tensor, sample: Tensor, weight: Tensor, exact: Tensor, scale: Tensor) -> float:
        """Variance of what quantizing changes in the layers' outputs; the mean is left to bias correction."""
        activation = placed_on_activation(get(self.activations))
        if activation.is_dynamic:
            inputs = activation.cast(sample / scale)
        else:
            low, high = find_range([bounds / scale], activation, "minmax", 100, site.path)
            inputs = activation.cast(sample / scale, activation.parameters(low=low, high=high))
        format = get(self.weights)
        difference = inputs @ (format.per_channel(0) if format.block is None else format).cast(weight * scale).T - exact
        return float((difference - difference.mean(0)).square().sum())


def smoothing(peak: Tensor, weight: Tensor, alpha: float) -> Tensor:
    """The scale of each channel, from the largest `|x|` of each channel and `weight`, `(outputs, channels)`."""
    peak = peak.clamp_min(1e-5)
    scale = (peak**alpha / weight.abs().amax(0).clamp_min(1e-5) ** (1 - alpha)).clamp_min(1e-5)
    return scale / scale.log().mean().exp()


def _is_plain(layer: Node, site: Site) -> bool:
    weight = layer.weight
    return weight is not None and weight.kind == "tensor" and all(user in site.layers for user in weight.users)


def _columns(layer: Node) -> Tensor:
    assert layer.weight is not None
    tensor = layer.graph.tensors[str(layer.weight.target)].detach().float()
    return tensor if roles(layer).in_axis == 1 else tensor.T


def _is_one(scale: Tensor) -> bool:
    return bool((scale == 1).all())
