"""GPTQ: round a weight one input channel after the other, the rest making up for the error.

Frantar et al., "GPTQ" (arXiv 2210.17323). Two things are added. The inputs are those of the quantized model, and the
target is the output of the exact one, so that rounding also makes up for what quantizing earlier layers and this
layer's input has cost: before rounding, the weight moves towards the least-squares solution. And where the bias is
corrected afterwards, inputs are taken about their means.
"""

# ruff: noqa: A002  (`format` is the word for it everywhere else)

from __future__ import annotations

import torch
from torch import Tensor

from planish.compress import pairs
from planish.compress.sites import replace_tensor, roles
from planish.compress.sweep import Read
from planish.errors import DataError
from planish.formats import Format
from planish.formats.each import of_each
from planish.graph import Graph, Node

DAMPING = 0.01
"""Added to the diagonal, as a share of its mean: of the paper."""
PULL = 0.1
"""How strongly the least-squares solution is held to the original weight, as a share of the diagonal's mean; inputs for
each row of calibration data are added, so that few rows move it little."""
COLUMNS = 128
"""Columns between two updates of all that follow."""


def applies(node: Node) -> bool:
    """Whether a layer's weight can be rounded so: a linear layer's, cast as it is stored."""
    weight = node.weight
    if node.op not in ("linear", "addmm") or weight is None or weight.op != "cast":
        return False
    return weight.inputs[0].kind == "tensor"


def round_weight(graph: Graph, node: Node, read: Read, about_mean: bool, in_pairs: bool = False) -> None:
    """Replace the layer's weight by numbers of its cast's format that compute the exact output best.

    Args:
        graph: Its tensors are changed.
        node: A layer that `applies` accepts.
        read: Gives what it reads.
        about_mean: Whether the bias will make up for the mean error.
        in_pairs: Whether codes are kept to pairs (`planish.compress.pairs`); the scales then grow.
    """
    cast = node.weight
    assert cast is not None
    assert cast.format is not None
    assert node.input is not None
    name = str(cast.inputs[0].target)
    old = graph.tensors[name]
    transposed = roles(node).out_axis == 1
    weight = (old.T if transposed else old).detach().double()
    gram, cross, rows = _moments([(b.actual, b.exact) for b in read(node.input)], weight.float(), about_mean)
    if in_pairs:
        pairs.grow_scale(graph, node, gram.diag().float())
    pull = (PULL + len(gram) / rows) * gram.diag().mean() * torch.eye(len(gram), dtype=gram.dtype)
    start = torch.linalg.solve(gram + pull, cross + pull @ weight.T).T
    parameters = tuple(graph.tensors[str(place.target)] for place in cast.args[1])
    partners = pairs.Partners(len(gram)) if in_pairs else None
    rounded = gptq(start, gram, cast.format, parameters, transposed, partners).to(old.dtype)
    replace_tensor(graph, name, (rounded.T if transposed else rounded).contiguous())


def _moments(inputs: list[tuple[Tensor, Tensor]], weight: Tensor, about_mean: bool) -> tuple[Tensor, Tensor, int]:
    """Products of the actual inputs, `(in, in)`, and of them with the exact outputs, `(in, out)`; of how many rows."""
    width = weight.shape[1]
    rows = [(actual.reshape(-1, width).float(), exact.reshape(-1, width).float()) for actual, exact in inputs]
    count = sum(len(actual) for actual, _ in rows)
    means = [torch.stack([side.double().sum(0) for side in sides]).sum(0) / count for sides in zip(*rows, strict=True)]
    gram, cross = torch.zeros(width, width, dtype=torch.float64), torch.zeros(width, len(weight), dtype=torch.float64)
    for actual, exact in rows:
        if about_mean:
            actual, exact = actual - means[0].float(), exact - means[1].float()
        gram += actual.T @ actual
        cross += actual.T @ (exact @ weight.T)
    return gram, cross, count


def gptq(
    weight: Tensor,
    gram: Tensor,
    format: Format,
    parameters: tuple[Tensor, ...],
    transposed: bool = False,
    partners: pairs.Partners | None = None,
) -> Tensor:
    """Numbers of `format` for `weight`, `(out, in)` float64, given the inputs' Gram matrix `(in, in)`.

    Args:
        weight: What to round.
        gram: Sum of the outer products of the inputs.
        format: The format; its block refers to the weight as stored.
        parameters: The scales, which stay as they are.
        transposed: Whether the weight is stored as `(in, out)`.
        partners: Keeps the codes to pairs.
    """
    order = torch.argsort(gram.diag(), descending=True)
    damped = gram[order][:, order] + DAMPING * gram.diag().mean().clamp_min(1e-12) * torch.eye(
        len(gram), dtype=gram.dtype
    )
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    upper, info = torch.linalg.cholesky_ex(inverse, upper=True)
    if int(info):
        raise DataError("the inputs of a layer are too alike to round its weight by GPTQ", hint="more calibration data")
    stored = weight.T if transposed else weight
    spread = _Columns(format, parameters, tuple(stored.shape), transposed, partners)
    left, result = weight[:, order].clone(), torch.empty_like(weight)
    for start in range(0, len(gram), COLUMNS):
        stop = min(start + COLUMNS, len(gram))
        errors = torch.empty(len(weight), stop - start, dtype=weight.dtype)
        for column in range(start, stop):
            place = int(order[column])
            value = left[:, column]
            rounded = spread.round(value, place)
            result[:, place] = rounded
            error = (value - rounded) / upper[column, column]
            left[:, column:stop] -= torch.outer(error, upper[column, column:stop])
            errors[:, column - start] = error
        left[:, stop:] -= errors @ upper[start:stop, stop:]
    return result


class _Columns:
    """Rounds single columns of a weight whose scales are known."""

    def __init__(
        self,
        format: Format,
        parameters: tuple[Tensor, ...],
        shape: tuple[int, ...],
        transposed: bool,
        partners: pairs.Partners | None,
    ) -> None:
        self.format, each = of_each(format, parameters, shape)
        self.parameters = [p.transpose(0, 1) if transposed else p for p in each]
        self.partners = partners

    def round(self, column: Tensor, place: int) -> Tensor:
        parameters = [p[:, place : place + 1].contiguous() for p in self.parameters]
        rounded = self.format.cast(column[:, None].float(), parameters)[:, 0]
        return self.partners.keep(rounded, parameters[0][:, 0], place) if self.partners else rounded
