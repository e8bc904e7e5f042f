"""The weight of any layer as a matrix, `(out, in)`, whose neighbors along a row are neighboring input channels."""

from __future__ import annotations

import torch
from torch import Tensor

from planish.compress.moments import rows
from planish.compress.sites import is_embedding, roles
from planish.graph import FAMILIES, Node


def to_matrix(node: Node, weight: Tensor) -> Tensor:
    """The layer's weight, or a mask of its shape, as `(out, in)`; a convolution's kernel positions come one after the
    other, each with all its input channels."""
    if node.op in FAMILIES["conv"]:
        return weight.movedim((roles(node).out_axis, roles(node).in_axis), (0, -1)).flatten(1)
    return weight.T if roles(node).out_axis == 1 else weight


def from_matrix(node: Node, matrix: Tensor) -> Tensor:
    """The inverse of `to_matrix`."""
    assert node.weight is not None
    if node.op not in FAMILIES["conv"]:
        return matrix.T.contiguous() if roles(node).out_axis == 1 else matrix.contiguous()
    kernel = [int(size) for size in node.weight.value.shape[2:]]
    whole = matrix.reshape(len(matrix), *kernel, -1)
    return whole.movedim((0, -1), (roles(node).out_axis, roles(node).in_axis)).contiguous()


def groups(node: Node) -> int:
    """In how many parts the input channels fall, each of which is multiplied with its own rows of the matrix."""
    return int(node.argument("groups") or 1)


def has_inputs(node: Node) -> bool:
    """Whether `inputs` can tell what the weight is multiplied with: of linear layers and plain convolutions."""
    return not is_embedding(node) and not node.op.startswith("conv_transpose")


def inputs(node: Node, value: Tensor) -> list[Tensor]:
    """What each group's rows are multiplied with: `(rows, in)` float32, columns as in `to_matrix`."""
    if node.op not in FAMILIES["conv"]:
        return [rows(node, value)]
    assert node.weight is not None
    positions = torch.Size(node.weight.value.shape[2:]).numel()
    channels = -len(node.weight.value.shape) + 1
    return [
        rows(node, part).unflatten(1, (-1, positions)).mT.flatten(1) for part in value.chunk(groups(node), channels)
    ]


def outputs(node: Node, value: Tensor) -> list[Tensor]:
    """What each group's rows give: `(rows, out)`."""
    assert node.weight is not None
    last = value.movedim(1 - len(node.weight.value.shape), -1)
    return list(last.flatten(0, -2).chunk(groups(node), -1))
