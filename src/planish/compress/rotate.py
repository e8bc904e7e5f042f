"""Rotations: spread the outliers of an activation over all of its channels, without changing what is computed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from planish.compress.hadamard import rotation
from planish.compress.mix import Mix, fold_into, head, makers, mixable, put_in_front
from planish.compress.sites import Site, weighted
from planish.compress.stream import Stream, find_stream, fused
from planish.errors import OptionError
from planish.graph import Data, Graph, Node, Pass, Progress, Selector, Step, parse_selector


@dataclass(frozen=True)
class Rotate(Pass):
    """Multiply what linear layers read by an orthogonal matrix, and their weights by its inverse.

    QuaRot (Ashkboos et al., arXiv 2404.00456): a channel that is always large becomes a little of every channel, so
    that few bits hold all. Outputs are equal but for the rounding of float32. Where the activation is a norm of the
    residual stream, the whole stream is rotated and nothing is left to compute: the norm's gain goes into the layers
    that read it, and a layer norm becomes an RMS norm once all that writes to the stream is centered (SliceGPT, arXiv
    2401.15024, section 3.2). Where attention makes it of values, each head is rotated in the layer that makes those.
    Anywhere else one product by the matrix is put in front. Put it before Quantize.

    Attributes:
        block: Channels that are mixed; None mixes all of them. For formats with a scale for each group, the group's
            size is enough in front of a layer, and takes fewer multiplications. Where it does not divide the channels
            of a layer, their greatest common divisor is taken. The stream and heads are always mixed as a whole.
        online: Whether to rotate where a product in front of the layers is needed.
        seed: Of the signs.
        where: The linear layers.
    """

    block: int | None = None
    online: bool = True
    seed: int = 0
    where: Selector | str = "linear"

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", parse_selector(self.where))
        if self.block is not None and self.block < 2:
            raise OptionError(f"a rotation mixes 2 channels or more, not {self.block}", "block", "block=32")

    def plan(self, graph: Graph) -> list[Step]:
        """One step for each activation, saying where the rotation goes."""
        stream, heads, online = self._places(graph)
        steps = []
        if stream is not None:
            text = f"residual stream of {stream.width} channels rotated, {len(stream.norms)} norms folded"
            steps.append(Step("", stream.norms[0].output.name, text))
        steps += [
            Step(site.path, site.layers[0].name, f"heads rotated in {maker.path or maker.name}")
            for site, maker, _ in heads
        ]
        steps += [
            Step(site.path, site.layers[0].name, f"input multiplied by a rotation of {self._size(site)}")
            for site in online
        ]
        return steps

    def draft(self, graph: Graph) -> Graph:
        """The rotated graph."""
        return self._rotated(graph)

    def apply(self, graph: Graph, data: Data | None, progress: Progress) -> Graph:
        """The rotated graph; its outputs are equal."""
        return self._rotated(graph)

    def _rotated(self, graph: Graph) -> Graph:
        stream, heads, online = self._places(graph)
        edit = graph.edit()
        for site, maker, size in heads:
            matrix = rotation(size, self.seed)
            fold_into(edit, maker, site, Mix(matrix, matrix))
        for site in online:
            matrix = rotation(self._size(site), self.seed)
            put_in_front(edit, site, Mix(matrix, matrix))
        result = edit.done()
        return result if stream is None else fused(result, stream, rotation(stream.width, self.seed))

    def _places(self, graph: Graph) -> tuple[Stream | None, list[tuple[Site, Node, int]], list[Site]]:
        """What is rotated as a stream, in heads, and by a product in front."""
        linear = [node for node in weighted(graph, self.where) if node.op in ("linear", "addmm")]
        stream = find_stream(graph, linear)
        inside = set() if stream is None else {layer.name for layer in stream.readers}
        found = mixable(graph, self.where)
        rest = [site for site in found if not inside.issuperset(layer.name for layer in site.layers)]
        made = makers(graph, rest)
        heads = [(site, made[site.source.name], head(site)) for site in rest if site.source.name in made]
        taken = {site.source.name for site, _, _ in heads}
        online = (
            [site for site in rest if site.source.name not in taken and self._size(site) > 1] if self.online else []
        )
        if stream is None and not heads and not online:
            raise OptionError(
                f"the selector {str(self.where)!r} matches no linear layer whose input can be rotated",
                "where",
                "put Rotate before Quantize, or online=True",
            )
        return stream, heads, online

    def _size(self, site: Site) -> int:
        width = int(site.source.value.shape[-1])
        return width if self.block is None else math.gcd(self.block, width)
