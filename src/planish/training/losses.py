"""What training makes small: task losses against a target, and distillation losses against a teacher's values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils import _pytree as pytree

from planish.errors import DataError
from planish.metrics import read_tensor
from planish.registry import Registry

TaskLoss = Callable[[Any, Any], Tensor]
"""`(output, target) -> scalar`."""
Distance = Callable[[Tensor, Tensor], Tensor]
"""`(student's, teacher's) -> scalar`."""

losses = Registry(
    "loss",
    {"cross_entropy": "planish.training.losses:cross_entropy", "mse": "planish.training.losses:mse"},
)
distances = Registry(
    "distance",
    {
        "relative": "planish.training.losses:relative",
        "cosine": "planish.training.losses:cosine",
        "kl": "planish.training.losses:divergence",
    },
)


def cross_entropy(output: Any, target: Tensor) -> Tensor:
    """Of scores `(batch, classes, ...)` and class numbers `(batch, ...)`."""
    return functional.cross_entropy(_wide(read_tensor(output)), target)


def mse(output: Any, target: Tensor) -> Tensor:
    """Mean squared difference of the output's tensor and a target of as many numbers."""
    found = _wide(read_tensor(output))
    return functional.mse_loss(found, target.reshape(found.shape).to(found.dtype))


def _wide(values: Tensor) -> Tensor:
    """Float32 or wider."""
    return values if values.dtype == torch.float64 else values.float()


def relative(student: Tensor, teacher: Tensor) -> Tensor:
    """Energy of the difference over that of the teacher's values: 0 if equal, 1 for a student that says nothing."""
    teacher = teacher.float()
    return (student.float() - teacher).square().sum() / teacher.square().sum().clamp_min(1e-12)


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """One less the mean cosine along the last axis."""
    return 1 - functional.cosine_similarity(student.float(), teacher.float(), dim=-1).mean()


def divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Kullback-Leibler divergence of two sets of scores along the last axis, times the temperature squared.

    Hinton et al., "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531), section 2.
    """
    soft, hard = functional.log_softmax(student.float() / temperature, -1), teacher.float() / temperature
    rows = functional.kl_div(soft, functional.log_softmax(hard, -1), reduction="none", log_target=True).sum(-1)
    return temperature**2 * rows.mean()


def of_outputs(distance: Distance, student: Any, teacher: Any) -> Tensor:
    """Mean distance over the floating tensors of two outputs of one structure.

    Raises:
        DataError: There is none, or their shapes differ.
    """
    sides = [[leaf for leaf in pytree.tree_leaves(each) if _is_real(leaf)] for each in (student, teacher)]
    shapes = [[tuple(leaf.shape) for leaf in side] for side in sides]
    if not shapes[1] or shapes[0] != shapes[1]:
        raise DataError(f"student and teacher give tensors of shapes {shapes[0]} and {shapes[1]}", "outputs")
    return of_pairs(distance, *sides)


def of_pairs(distance: Distance, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean distance over pairs of tensors."""
    return torch.stack([distance(mine, its) for mine, its in zip(student, teacher, strict=True)]).mean()


def _is_real(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()
