"""Cluster: few numbers for each weight tensor, found by k-means; a weight is a place in a learned codebook."""

# ruff: noqa: A001  (`format` is the word for it everywhere else)

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from planish.compress.gptq import frozen
from planish.compress.moments import rows
from planish.compress.quantize import WEIGHTED, Quantize
from planish.compress.sites import placed_on_weight, roles, weighted
from planish.compress.sweep import Read, sweep
from planish.errors import OptionError
from planish.formats import TENSOR, Format, get
from planish.formats.lut import fit_codebooks
from planish.graph import FAMILIES, Data, Graph, Node, Pass, Progress, Selector, Step, parse_selector
from planish.graph.evaluate import fold


@dataclass(frozen=True)
class Cluster(Pass):
    """Let the weights of a layer share `k` numbers (Han et al., "Deep Compression", arXiv 1510.00149, section 3).

    The format is a learned codebook (`lut4` for 16 numbers): the numbers are stored beside the weight, and train with
    it. With calibration data a squared error counts as much as its input is strong, by the diagonal of the inputs' Gram
    matrix (in the place of the Fisher information in SqueezeLLM, arXiv 2306.07629, equation 4), earlier layers being
    clustered already. Zeros of a mask stay: one of the numbers is then zero.

    Attributes:
        k: How many numbers, 2 to 256.
        where: The layers.
        each: What has a codebook: "tensor", or each output "channel".
        codebook: Format of the numbers.
    """

    k: int = 16
    where: Selector | str = WEIGHTED
    each: Literal["tensor", "channel"] = "tensor"
    codebook: str = "float32"

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", parse_selector(self.where))
        if not 2 <= self.k <= 256:
            raise OptionError(f"a codebook has 2 to 256 numbers, not {self.k}", "k", "k=16")
        if self.each not in ("tensor", "channel"):
            raise OptionError(f"a codebook for each {self.each!r}", "each", "'tensor' or 'channel'")
        get(self.codebook)
        _ = self.format

    @property
    def format(self) -> Format:
        """The learned codebook, without a block where it is placed by the layer's output channels."""
        block = "@tensor" if self.each == "tensor" else ""
        return get(f"lut{math.ceil(math.log2(self.k))}{block}*{self.codebook}")

    def plan(self, graph: Graph) -> list[Step]:
        """One step for each tensor: its codebook, and its bytes before and after."""
        return self._quantize.plan(graph)

    def draft(self, graph: Graph) -> Graph:
        """The graph with its casts, by k-means without data."""
        return self._quantize.draft(graph)

    def apply(self, graph: Graph, data: Data | None, progress: Progress) -> Graph:
        """The graph with codebooks."""
        before = {node.name for node in weighted(graph, self.where) if _is_cast(node)}
        result = self._quantize.apply(graph, None, progress)
        layers = [node for node in weighted(result, self.where) if _is_cast(node) and node.name not in before]
        if data is None:
            for node in layers:
                self._fit(result, node, None)
            return result
        wanted, strengths = {node.name for node in layers}, dict[Node, Tensor]()

        def visit(node: Node, read: Read) -> None:
            assert node.weight is not None
            progress(len(strengths), len(wanted), node.path)
            own = _strength(node, read)
            if own is not None:  # a codebook that several layers read is fitted to all of them, so far
                own = strengths[node.weight] = own + strengths.get(node.weight, 0.0)
            self._fit(result, node, own)

        sweep(result, data, visit, wanted, "Cluster")
        progress(len(wanted), len(wanted), "")
        return result

    @property
    def _quantize(self) -> Quantize:
        return Quantize(weights=self.format, where=self.where)

    def _fit(self, graph: Graph, node: Node, strength: Tensor | None) -> None:
        """Give the layer's cast its codebooks; `strength` is what each squared error counts, along the inputs."""
        cast = node.weight
        assert cast is not None
        assert cast.format is not None
        source = cast.inputs[0]
        value = fold(graph, source.fx)
        assert value is not None
        x, masked = value.detach(), frozen(graph, source.fx)
        heavy = torch.ones_like(x) if strength is None else _along_inputs(strength, x, node)
        if masked is not None:
            heavy = heavy * ~masked
        format = placed_on_weight(self.format, node)
        block, count = format.block or TENSOR, self.k if masked is None else self.k - 1
        low, high = (getattr(x, end)().expand(block.scale_shape(x.shape)) for end in ("amin", "amax"))
        found = fit_codebooks(x, low, high, block, count, heavy)
        if masked is not None:
            found = torch.cat([found, torch.zeros_like(found[..., :1])], -1).sort().values
        found = pad(found, (0, (1 << format.element.bits) - self.k), value=0.0)
        found[..., self.k :] = found[..., self.k - 1 : self.k]  # places beyond k are never the nearest
        assert format.scale is not None
        name = str(cast.args[1][0].target)
        graph.tensors[name] = torch.nn.Parameter(format.scale.cast(found))  # trains beside the weight


def _is_cast(node: Node) -> bool:
    return node.weight is not None and node.weight.op == "cast"


def _strength(node: Node, read: Read) -> Tensor | None:
    """The diagonal of the Gram matrix of a linear layer's or an ungrouped convolution's inputs, `(in,)` float64."""
    conv = node.op in ("conv1d", "conv2d", "conv3d") and node.argument("groups") == 1
    if not conv and node.op not in FAMILIES["linear"]:
        return None
    assert node.input is not None
    return torch.stack([rows(node, batch.actual).double().square().sum(0) for batch in read(node.input)]).sum(0)


def _along_inputs(strength: Tensor, weight: Tensor, node: Node) -> Tensor:
    if roles(node).out_axis == 1:
        return strength.unsqueeze(1).expand_as(weight)
    return strength.reshape(1, *weight.shape[1:]).expand_as(weight)
