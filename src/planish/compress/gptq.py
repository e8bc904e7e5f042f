"""GPTQ: round a weight one input channel after the other, the rest making up for the error.

Frantar et al., "GPTQ" (arXiv 2210.17323); the arithmetic is in `planish.compress.columns`. Four things are added. The
inputs are those of the quantized model, and the target is the output of the exact one, so that rounding also makes up
for what quantizing earlier layers and this layer's input has cost: before rounding, the weight moves towards the
least-squares solution. Where the bias is corrected afterwards, inputs are taken about their means. The scale of each
block is chosen as the block is reached, by the loss that it leaves. And the result is improved by coordinate descent.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from planish.compress.adaround import adaround
from planish.compress.columns import Fixed, damped, descend, gptq, ridged
from planish.compress.expression import assign, solvable
from planish.compress.grid import Grid, Layout
from planish.compress.moments import Moments
from planish.compress.pairs import Partners
from planish.compress.sites import roles
from planish.compress.sweep import Read
from planish.graph import FAMILIES, Graph, Node
from planish.graph.evaluate import base_name_of, fold
from planish.graph.ops import base_name

Together = Literal["gptq", "adaround"]
"""How the weights of a layer are rounded with regard to each other."""
PULL = 0.1
"""How strongly the least-squares solution is held to the original weight, as a share of the diagonal's mean; inputs for
each row of calibration data are added, so that few rows move it little."""


def applies(node: Node) -> bool:
    """Whether a layer's weight can be rounded so: of a linear layer or a convolution in one group, cast, an expression
    that can be given other values, and read by this layer only."""
    weight = node.weight
    if weight is None or weight.op != "cast" or not solvable(weight.fx):
        return False
    linear = node.op in FAMILIES["linear"]
    conv = node.op in ("conv1d", "conv2d", "conv3d") and node.argument("groups") == 1
    return (linear or conv) and _own(node)


def _own(node: Node) -> bool:
    reader, step = node.fx, node.weight.fx  # type: ignore[union-attr]
    while list(step.users) == [reader] and step.op != "get_attr":
        reader, step = step, next(source for source in step.all_input_nodes if base_name_of(source))
    tensors = node.graph.tensors
    same = [name for name, tensor in tensors.items() if tensor is tensors.get(str(step.target))]
    return list(step.users) == [reader] and len(same) == 1


def round_weight(graph: Graph, node: Node, read: Read, inputs: Moments, by: Together, in_pairs: bool = False) -> None:
    """Replace the layer's weight by numbers of its cast's format that compute the exact output best.

    Args:
        graph: Its tensors are changed, the scales too.
        node: A layer that `applies` accepts.
        read: Gives what it reads.
        inputs: Of its inputs, about their means if the bias will make up for the mean error.
        by: How: "adaround" takes the scales of least squared error and no others.
        in_pairs: Whether codes are kept to pairs (`planish.compress.pairs`); the scales then grow.
    """
    cast = node.weight
    assert cast is not None
    assert cast.format is not None
    source = cast.inputs[0]
    current = fold(graph, source.fx)
    assert current is not None
    layout = Layout(tuple(current.shape), roles(node).out_axis == 1)
    now, exact = (layout.matrix(value.detach()) for value in (current, read(cast)[0].exact))
    gram = inputs.gram
    pull = (PULL + len(gram) / inputs.count) * gram.diag().mean().clamp_min(1e-12)
    wanted = (inputs.cross @ exact.double().T).add_(now.double().T, alpha=float(pull))
    del inputs  # these matrices are large: each goes as soon as it is not needed
    start = torch.cholesky_solve(wanted, torch.linalg.cholesky(ridged(gram, pull))).T.float()
    del wanted
    if by == "adaround":
        fit_scale(graph, node)
    places = [str(place.target) for place in cast.args[1]]
    grid = Grid(cast.format, tuple(graph.tensors[place].detach() for place in places), layout)
    partners = Partners(len(gram)) if in_pairs else None
    still = frozen(graph, source.fx)
    fixed = None if still is None else Fixed(layout.matrix(still).T, now.float().T)
    gram = damped(gram)
    if by == "adaround":
        rounded = adaround(start, gram, grid, fixed)
    else:
        rounded = descend(gptq(start, gram, grid, fixed, partners), start, gram, grid, fixed, partners)
    for place, parameter in zip(places, grid.parameters, strict=True):
        graph.tensors[place] = parameter
    assign(graph, cast.fx, layout.stored(rounded.to(current.dtype)))


def fit_scale(graph: Graph, node: Node) -> None:
    """Give the cast of a weight that is rounded to the nearest the scales of least squared error."""
    cast = node.weight
    assert cast is not None
    assert cast.format is not None
    current = fold(graph, cast.inputs[0].fx)
    assert current is not None
    best = replace(cast.format, rule="mse").parameters(current)
    for place, parameter in zip(cast.args[1], best, strict=True):
        graph.tensors[str(place.target)] = parameter


def frozen(graph: Graph, node: torch.fx.Node) -> Tensor | None:
    """Where no value of the tensor at the bottom changes that of the expression: masked; None if nowhere."""
    if node.op != "call_function":
        return None
    inner = next((source for source in node.all_input_nodes if base_name_of(source)), None)
    below = None if inner is None else frozen(graph, inner)
    name = base_name(node.target)
    if name == "mul" and inner is not None:
        factor = next(argument for argument in node.args[:2] if argument is not inner)
        if isinstance(factor, torch.fx.Node):
            value = fold(graph, factor)
            assert value is not None
            zero = (value == 0).expand(node.meta["val"].shape)
            below = zero if below is None else below | zero
        return below if below is not None and bool(below.any()) else None
    if below is None:
        return None
    if name in ("t", "transpose", "permute", "view", "reshape"):
        args = [below if argument is inner else argument for argument in node.args]
        return node.target(*args, **node.kwargs)  # type: ignore[operator]
    return below if below.shape == node.meta["val"].shape and name not in ("matmul", "mm") else None
