"""What values the nodes of a graph take on calibration data, in one pass and bounded memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from planish.analysis.execute import Executor, calls
from planish.errors import DataError, OptionError
from planish.formats import Format
from planish.formats.scaling import OF_THE_NUMBERS
from planish.graph import ROLES, Data, Graph, Node, Progress

Statistic = Literal["minmax", "histogram", "channel_absmax", "gram"]

BINS = 8192
_HALF = BINS // 2
_SHRINK = tuple(1 - step / 40 for step in range(32))


@dataclass(frozen=True, eq=False)
class Ranges:
    """What one node's output looked like.

    Attributes:
        node: Its name.
        path: Its module path.
        count: How many numbers were seen.
        low: The lowest, a tensor of shape ().
        high: The highest.
        width: Width of a histogram bin, a power of two; 0 where all numbers were 0 or no histogram was asked for.
        bins: How many numbers fell in each bin `[(i - 4096) · width, (i - 4095) · width)`, int64 of shape (8192,).
        channel_axis: The axis of `channel_absmax` and `gram`, counted from the end.
    """

    node: str
    path: str
    count: int
    low: Tensor
    high: Tensor
    width: float
    bins: Tensor | None
    channel_axis: int
    _channel_absmax: Tensor | None
    _gram: Tensor | None

    @property
    def channel_absmax(self) -> Tensor:
        """The largest magnitude of each channel, of shape (channels,)."""
        return self._asked("channel_absmax", self._channel_absmax)

    @property
    def gram(self) -> Tensor:
        """Sum of the outer products of all vectors along the channel axis, of shape (channels, channels)."""
        return self._asked("gram", self._gram)

    def _asked(self, statistic: str, value: Tensor | None) -> Tensor:
        if value is None:
            raise OptionError(f"{statistic} was not collected", self.node, f"statistics=({statistic!r}, ...)")
        return value

    def minmax(self) -> tuple[Tensor, Tensor]:
        """The lowest and the highest number seen, each of shape ()."""
        return self.low, self.high

    def percentile(self, percent: float) -> tuple[Tensor, Tensor]:
        """The range that holds the middle `percent` of the numbers (99.9: the outer 0.05 % at each end are left out).

        Exact to one bin of the histogram, that is 1/4096 of the largest magnitude or better than half as good.
        """
        if not 0 < percent <= 100:
            raise OptionError(f"a percentile is above 0 and at most 100, not {percent}", "percentile")
        bins = self._asked("histogram", self.bins)
        if percent == 100 or not self.width:
            return self.minmax()
        cut = self.count * (100 - percent) / 200
        below = bins.cumsum(0).double()
        first = int(torch.searchsorted(below, cut, right=True))
        last = int(torch.searchsorted(below, self.count - cut))
        low, high = (first - _HALF) * self.width, (min(last, BINS - 1) - _HALF + 1) * self.width
        return self.low.clamp(min=low), self.high.clamp(max=high)

    def mse(self, form: Format) -> tuple[Tensor, Tensor]:
        """The range that loses least in squared error when numbers are cast to `form` with one scale."""
        bins = self._asked("histogram", self.bins)
        if not self.width or form.scale is None:
            return self.minmax()
        form = replace(form.per_tensor(), is_dynamic=False, rule="absmax" if form.rule in OF_THE_NUMBERS else form.rule)
        seen = bins.nonzero().flatten()
        centers = ((seen - _HALF + 0.5) * self.width).clamp(float(self.low), float(self.high)).float()
        weights = bins[seen].double()

        def error(low: Tensor, high: Tensor) -> float:
            lost = form.cast(centers, form.parameters(low=low, high=high)) - centers
            return float((lost.double().square() * weights).sum())

        together = min(_SHRINK, key=lambda r: error(self.low * r, self.high * r))
        low, high = self.low * together, self.high * together
        if form.is_affine:  # each end by itself: activations after a GELU are far from symmetric
            low = self.low * min(_SHRINK, key=lambda r: error(self.low * r, high))
            high = self.high * min(_SHRINK, key=lambda r: error(low, self.high * r))
        return low, high


def collect(
    graph: Graph,
    data: Data,
    nodes: Iterable[Node | str],
    *,
    statistics: Iterable[Statistic] = ("minmax", "histogram", "channel_absmax"),
    progress: Progress | None = None,
) -> dict[str, Ranges]:
    """Run calibration data through a graph once and describe what chosen nodes give.

    Args:
        graph: The graph.
        data: Re-iterable `(args, kwargs)`.
        nodes: Operations or inputs of the graph, or their names.
        statistics: What to keep beside the range, which is always there. `gram` takes channels² floats a node.
        progress: Called after each item.

    Returns:
        Node name -> what was seen there.

    Raises:
        DataError: There is no data, an item does not fit, or a chosen node gave NaN or an infinity (names the node).
        OptionError: An unknown statistic, no such node, or a node that does not give a floating-point tensor.
    """
    wanted = frozenset(statistics)
    if unknown := wanted - set(get_args(Statistic)):
        raise OptionError(
            f"unknown statistic {', '.join(sorted(unknown))}", "statistics", ", ".join(get_args(Statistic))
        )
    chosen = [graph.node(node) if isinstance(node, str) else node for node in nodes]
    seen = {node.fx: _Seen(node, wanted) for node in chosen}
    executor = Executor(graph)
    stop = max((executor.place.get(node.fx, -1) for node in chosen), default=-1) + 1
    items = calls(data)
    for index, call in enumerate(items):
        values = executor.bind(call, f"data[{index}]")
        for node, value in list(values.items()):
            if node in seen:
                seen[node].add(value, index)
        executor.advance(
            values, 0, stop, lambda node, value, i=index: seen[node].add(value, i) if node in seen else None
        )
        if progress is not None:
            progress(index + 1, len(items), "calibration")
    return {found.node.name: found.result() for found in seen.values()}


class _Seen:
    """What is known so far of one node's output."""

    def __init__(self, node: Node, statistics: frozenset[str]) -> None:
        self.node, self.statistics = node, statistics
        self.axis = channel_axis(node)
        self.count, self.width = 0, 0.0
        self.low, self.high = torch.tensor(float("inf")), torch.tensor(float("-inf"))
        self.bins = torch.zeros(BINS, dtype=torch.int64)
        self.absmax: Tensor | None = None
        self.gram: Tensor | None = None

    def add(self, value: Any, item: int) -> None:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise OptionError(f"{self.node.name} does not give a floating-point tensor", self.node.path, "another node")
        if value.numel() == 0:
            return
        x = value.detach().float()
        low, high = torch.aminmax(x)
        if not bool(torch.isfinite(low + high)):
            where = f"{self.node.path or 'the model'} ({self.node.name}), data[{item}]"
            raise DataError(
                "NaN or infinity in the calibration values", where, "clean the data, or leave this item out"
            )
        self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)
        self.count += x.numel()
        if "histogram" in self.statistics:
            self._count_bins(x, max(-float(low), float(high)))
        if x.dim() and not self.statistics.isdisjoint({"channel_absmax", "gram"}):
            self._look_at_channels(x.movedim(self.axis if x.dim() >= -self.axis else -1, -1).flatten(0, -2))

    def _count_bins(self, x: Tensor, magnitude: float) -> None:
        if magnitude and not self.width:
            self.width = 2.0 ** torch.tensor(magnitude / _HALF).log2().ceil().clamp(min=-149).item()
            self.bins[_HALF] = self.count - x.numel()  # zeros, all that came before
        while magnitude >= self.width * _HALF and self.width:  # bins are aligned to 0, so that pairs merge exactly
            merged = self.bins.view(-1, 2).sum(1)
            self.bins = torch.zeros_like(self.bins)
            self.bins[_HALF // 2 : _HALF // 2 + _HALF] = merged
            self.width *= 2
        if self.width:
            places = torch.floor(x.flatten() / self.width).long().add_(_HALF).clamp_(0, BINS - 1)
            self.bins += torch.bincount(places, minlength=BINS)
        else:
            self.bins[_HALF] += x.numel()

    def _look_at_channels(self, rows: Tensor) -> None:
        if "channel_absmax" in self.statistics:
            here = rows.abs().amax(0)
            self.absmax = here if self.absmax is None else torch.maximum(self.absmax, here)
        if "gram" in self.statistics:
            here = rows.T @ rows
            self.gram = here if self.gram is None else self.gram + here

    def result(self) -> Ranges:
        if not self.count:
            raise DataError(
                "the calibration data never gave this node a number", f"{self.node.path} ({self.node.name})"
            )
        bins = self.bins if "histogram" in self.statistics else None
        names = self.node.name, self.node.path, self.count
        return Ranges(*names, self.low, self.high, self.width, bins, self.axis, self.absmax, self.gram)


def channel_axis(node: Node) -> int:
    """The axis that users of a node see as input channels: before the image axes of a convolution, else the last."""
    for user in node.users:
        if user.op == "cast":
            return channel_axis(user)
        if user.op in ROLES and user.input == node and user.op.startswith("conv"):
            rank = next((int(c) for c in user.op if c.isdigit()), None)
            return -1 - (rank if rank is not None else len(node.shape or ()) - 2)
    return -1
