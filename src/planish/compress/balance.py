"""Balancing: the matrix for each block of an activation that leaves the least error once both sides are quantized."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from planish.compress.hadamard import rotation
from planish.compress.mix import Mix, fold_into, head, makers, matrix_of, mixable, put_in_front
from planish.compress.moments import damped, root
from planish.compress.sites import Site
from planish.compress.sweep import check_items
from planish.compress.watch import Watch
from planish.errors import DataError, OptionError
from planish.graph import Data, Graph, Node, Pass, Progress, Selector, Step, parse_selector

DAMPING = 0.01
"""Added to the diagonals of both moments, as a share of their means."""
ROWS = 1 << 14
"""Of an activation: enough for moments of a block, of data in random order."""


@dataclass(frozen=True)
class Balance(Pass):
    """Multiply what linear layers read, block by block, by the matrix that rounding harms least, and the weights by its
    inverse.

    Where a block of numbers shares a scale, rounding leaves an error in proportion to the block's energy, in an
    activation `x` and in the weights that read it. Of all matrices `A` in front, `x -> A x`, the error behind the layer
    is least where `A'A` is the geometric mean `H^-1 # G` of the inverse second moment of `x` and the second moment of
    the gradient `g` with respect to it, followed by a rotation that spreads what is left over the block (Chen et al.,
    "WUSH", arXiv 2512.00956, where `G` is of the weights; in control theory, balancing: Moore, IEEE Transactions on
    Automatic Control 26(1), 1981). `g` is that of random projections of the outputs, each row divided by its length, so
    that what counts is the direction of what the model answers. A row of `x` counts as much as its gradient, and a
    gradient as much as its row. Activations are centered, too, where their readers have biases (Wei et al., "Outlier
    Suppression+", arXiv 2304.09145).

    Outputs are equal but for the rounding of float32. Where a linear layer makes the activation, also through
    attention, matrices go into that layer; anywhere else one product, `channels × block` a token, is put in front. Put
    it before Quantize; weights that are rounded to the nearest gain less than those that GPTQ or learning correct.

    Attributes:
        block: Channels that are mixed: the size of the format's blocks. Where it does not divide the channels of a
            layer, or of a head, their greatest common divisor is taken.
        share: Let blocks grow to multiples of that as long as the product in front takes at most this share of the
            multiply-accumulates of the layers behind it: what channels of several blocks have in common is then
            balanced, too. None leaves them.
        seed: Of the projections and of the rotation's signs.
        where: The linear layers.
    """

    block: int = 32
    share: float | None = None
    seed: int = 0
    where: Selector | str = "linear"

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", parse_selector(self.where))
        if self.block < 2:
            raise OptionError(f"balancing mixes 2 channels or more, not {self.block}", "block", "block=32")
        if self.share is not None and not self.share > 0:
            raise OptionError(f"a share is above 0, not {self.share}", "share", "share=0.3, or None")

    def plan(self, graph: Graph) -> list[Step]:
        """One step for each activation, saying where the matrices go."""
        steps = []
        for site, maker, size in self._places(graph):
            where = f"in {maker.path or maker.name}" if maker is not None else "by a product in front"
            steps.append(Step(site.path, site.layers[0].name, f"input balanced in blocks of {size} {where}"))
        return steps

    def draft(self, graph: Graph) -> Graph:
        """The graph with matrices that change nothing."""
        mixes = {}
        for site, _, size in self._places(graph):
            channels = int(site.source.value.shape[-1])
            same = torch.eye(size, dtype=torch.float64).expand(channels // size, size, size)
            shift = torch.zeros(channels, dtype=torch.float64) if _takes_shift(site) else None
            mixes[site.source.name] = Mix(same, same, shift)
        return self._mixed(graph, mixes)

    def apply(self, graph: Graph, data: Data | None, progress: Progress) -> Graph:
        """The balanced graph; its outputs are equal."""
        places = self._places(graph)
        found = {site.source.name: _Moments(site, size) for site, _, size in places}
        watch = Watch(graph, {name for moments in found.values() for name in moments.names})
        for parameter in watch.module.parameters():
            parameter.requires_grad_()
        generator = torch.Generator().manual_seed(self.seed)
        items = check_items(data, "Balance")
        for done, place in enumerate(torch.randperm(len(items), generator=generator).tolist()):
            if all(moments.rows >= ROWS for moments in found.values()):
                break
            progress(done, len(items), "gradients")
            args, kwargs = items[place]
            with torch.enable_grad():
                _projection(watch(args, kwargs), generator).backward()
            watch.module.zero_grad(set_to_none=True)
            for moments in found.values():
                moments.add(watch.seen)
        return self._mixed(graph, {name: moments.mix(self.seed) for name, moments in found.items()})

    def _places(self, graph: Graph) -> list[tuple[Site, Node | None, int]]:
        """Each activation, the layer that makes it if matrices can go there, and how many channels are mixed."""
        found = [site for site in mixable(graph, self.where) if site.source.value.dim() > 1]
        made, places = makers(graph, found), list[tuple[Site, Node | None, int]]()
        for site in found:
            maker = made.get(site.source.name)
            if maker is not None and _takes_shift(site) and maker.bias is None:
                maker = None
            size = math.gcd(self.block, head(site)) if maker is not None else self._in_front(site)
            if size > 1:
                places.append((site, maker, size))
        if not places:
            raise OptionError(
                f"the selector {str(self.where)!r} matches no linear layer whose input can be balanced",
                "where",
                "put Balance before Quantize",
            )
        return places

    def _in_front(self, site: Site) -> int:
        """Channels that a product in front of the layers mixes."""
        width = int(site.source.value.shape[-1])
        size = math.gcd(self.block, width)
        outputs = sum(int(layer.value.shape[-1]) for layer in site.layers)
        most = size if self.share is None else self.share * outputs
        return max((each for each in range(size, width + 1, size) if width % each == 0 and each <= most), default=size)

    def _mixed(self, graph: Graph, mixes: Mapping[str, Mix]) -> Graph:
        edit = graph.edit()
        for site, maker, _ in self._places(graph):
            mix = mixes[site.source.name]
            if maker is not None:
                fold_into(edit, maker, site, mix)
            else:
                put_in_front(edit, site, mix)
        return edit.done()


class _Moments:
    """Of an activation and of the gradient with respect to it, block by block, summed over the data.

    Args:
        site: The activation, and the layers that read it.
        size: Channels of a block.

    Attributes:
        rows: How many were counted.
    """

    def __init__(self, site: Site, size: int) -> None:
        self._site, self._size, self.rows = site, size, 0
        self._weights = [matrix_of(layer) for layer in site.layers]
        self._weight = self._sum = self._of_x = self._of_g = torch.zeros((), dtype=torch.float64)

    @property
    def names(self) -> set[str]:
        """The values that `add` needs."""
        return {self._site.source.name, *(layer.name for layer in self._site.layers)}

    def add(self, seen: Mapping[str, Tensor]) -> None:
        """Count one item of data, of which the values and their gradients are given."""
        x = seen[self._site.source.name].detach().flatten(0, -2).double()
        g = torch.zeros_like(x)
        for layer, weight in zip(self._site.layers, self._weights, strict=True):
            if (gradient := seen[layer.name].grad) is not None:  # that of what the layer gives, not of other readers
                g += gradient.flatten(0, -2).double() @ weight
        self.rows += len(x)
        of_x, of_g = g.square().sum(1, keepdim=True), x.square().sum(1, keepdim=True)
        self._weight, self._sum = self._weight + of_x.sum(), self._sum + (of_x * x).sum(0)
        self._of_x, self._of_g = self._of_x + self._products(x, of_x), self._of_g + self._products(g, of_g)

    def mix(self, seed: int) -> Mix:
        """The matrices, of a size that leaves the weights their energy.

        Raises:
            DataError: The activation is not finite, or nothing depends on it.
        """
        path = self._site.path
        if not bool(torch.isfinite(self._of_x).all() & torch.isfinite(self._of_g).all()):
            raise DataError(
                "an activation or its gradient is NaN or infinite on the calibration data", path, "check data and model"
            )
        if not bool(self._of_g.any()):
            raise DataError("no gradient of the outputs reaches the layer", path, "leave it out of `where`, or Rotate")
        mean = self._sum / self._weight
        runs = mean.unflatten(0, (-1, self._size, 1))
        shift = mean if _takes_shift(self._site) else None
        of_x = self._of_x / self._weight - (0 if shift is None else runs @ runs.mT)
        metric = _geometric_mean(damped(of_x, DAMPING), damped(self._of_g, DAMPING))
        forward = root(metric) @ rotation(self._size, seed)
        backward = torch.linalg.inv(forward).mT
        columns = torch.cat(self._weights).unflatten(-1, (-1, 1, self._size))
        gain = (columns @ backward).norm() / columns.norm()
        return Mix(forward * gain, backward / gain, shift)

    def _products(self, rows: Tensor, weight: Tensor) -> Tensor:
        runs = rows.unflatten(-1, (-1, self._size)).movedim(-2, 0)
        return (runs * weight).mT @ runs


def _takes_shift(site: Site) -> bool:
    """Whether each reader has a bias of its own to make up for a shift."""
    biases = [layer.bias for layer in site.layers]
    return all(bias is not None and bias.kind == "tensor" and len(bias.users) == 1 for bias in biases)


def _projection(outputs: list[Tensor], generator: torch.Generator) -> Tensor:
    """A random projection of the outputs, each row (along the last axis) divided by its length."""
    total = torch.zeros(())
    for output in outputs:
        length = output.detach().norm(dim=-1, keepdim=True).clamp_min(torch.finfo(output.dtype).tiny)
        noise = torch.randn(output.shape, generator=generator, dtype=output.dtype)
        total = total + (output / length * noise).sum()
    return total


def _geometric_mean(of_x: Tensor, of_g: Tensor) -> Tensor:
    """`H^-1 # G`: the symmetric `P` with `P H P = G`."""
    of_x = root(of_x)
    inverse = torch.linalg.inv(of_x)
    return inverse @ root(of_x @ of_g @ of_x) @ inverse
