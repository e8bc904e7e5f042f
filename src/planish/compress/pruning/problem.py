"""What the weights that stay are to compute: the outputs of the exact model, from the inputs of the pruned one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from planish.compress.pruning.matrix import groups, inputs, outputs, to_matrix
from planish.compress.sites import weight_of
from planish.compress.sweep import Read
from planish.errors import DataError
from planish.graph import Node

PULL = 0.1
"""How strongly the least-squares solution is held to the present weight, as a share of the Gram matrix's mean diagonal;
inputs for each row of calibration data are added, so that few rows move it little."""


@dataclass(frozen=True)
class Problem:
    """Minimize `tr((W - best) gram (W - best)^T)`, for each group of a layer.

    Attributes:
        best: The weight that would compute the targets best were nothing pruned, `(out, in)` float64.
        gram: Products of the inputs, with what holds the solution to the present weight, `(in, in)` float64.
        input: Mean of the inputs, `(in,)`; zero where the bias is not to change.
        target: Mean of the targets, `(out,)`, likewise.
    """

    best: Tensor
    gram: Tensor
    input: Tensor
    target: Tensor


def problems(node: Node, read: Read, moves_bias: bool) -> list[Problem]:
    """One for each group of a linear layer or convolution.

    Where the output is only added to another tensor (a residual), the target is the exact sum, less that tensor as it
    now is: the layer also makes up for what earlier ones have left in the residual.

    Args:
        node: The layer.
        read: Gives what it reads.
        moves_bias: Whether the bias makes up for the means.

    Raises:
        DataError: The layer never saw a row, or sees NaN or infinity.
    """
    weight = weight_of(node)
    assert node.input is not None
    assert weight is not None
    matrix = to_matrix(node, weight).double().chunk(groups(node))
    sums = [_Sums(part) for part in matrix]
    partner = _partner(node)
    beside = read(partner) if partner is not None else None
    operands = [read(source) for source in node.inputs]
    x = read(node.input)
    for index, batch in enumerate(x):
        target = _call(node, [operand[index].exact for operand in operands], moves_bias)
        if beside is not None:
            target = target + beside[index].exact - beside[index].actual
        pairs = zip(sums, inputs(node, batch.actual), outputs(node, target.float()), strict=True)
        for part, actual, wanted in pairs:
            part.add(actual, wanted)
    return [part.problem(moves_bias, node.path or node.name) for part in sums]


class _Sums:
    """Products of inputs with each other and with the targets."""

    def __init__(self, weight: Tensor) -> None:
        self.weight, self.count = weight, 0
        out, width = weight.shape
        self.gram, self.cross = torch.zeros(width, width, dtype=torch.float64), torch.zeros(width, out).double()
        self.input, self.target = torch.zeros(width).double(), torch.zeros(out).double()

    def add(self, actual: Tensor, wanted: Tensor) -> None:
        self.count += len(actual)
        self.gram += actual.T @ actual
        self.cross += actual.T @ wanted
        self.input += actual.sum(0, dtype=torch.float64)
        self.target += wanted.sum(0, dtype=torch.float64)

    def problem(self, moves_bias: bool, where: str) -> Problem:
        if not self.count:
            raise DataError("the calibration data never reaches a layer", where)
        means = [self.input / self.count, self.target / self.count]
        gram, cross = self.gram, self.cross
        if moves_bias:
            gram.addr_(means[0], means[0], alpha=-self.count)
            cross.addr_(*means, alpha=-self.count)
        else:
            means = [torch.zeros_like(mean) for mean in means]
        if not bool(torch.isfinite(gram.sum() + cross.sum())):
            raise DataError("an activation is NaN or infinite on the calibration data", where, "check data and model")
        pull = (PULL + len(gram) / self.count) * gram.diag().mean().clamp_min(1e-12)
        gram.diagonal().add_(pull)
        best = torch.cholesky_solve(cross.add_(self.weight.T, alpha=float(pull)), torch.linalg.cholesky(gram)).T
        return Problem(best, gram, means[0], means[1])


def _partner(node: Node) -> Node | None:
    """The tensor that the output is only added to, if that is computed before the layer."""
    end = node
    while len(end.users) == 1 and end.users[0].op == "dropout":
        end = end.users[0]
    user = end.users[0] if len(end.users) == 1 else None
    if user is None or user.op not in ("add", "add_") or user.kwargs.get("alpha", 1) != 1 or len(user.inputs) != 2:
        return None
    other = next(source for source in user.inputs if source != end)
    return other if other.shape == end.shape and other.fx < node.fx else None


def _call(node: Node, values: list[Any], with_bias: bool) -> Tensor:
    places: dict[fx.Node, Any] = dict(zip(node.fx.all_input_nodes, values, strict=True))
    if not with_bias and node.bias is not None:
        places[node.bias.fx] = torch.zeros_like(places[node.bias.fx])
    args, kwargs = fx.map_arg((node.fx.args, dict(node.fx.kwargs)), places.__getitem__)
    return node.target(*args, **kwargs)
