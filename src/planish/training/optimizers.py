"""Optimizers by name; anything that makes one from parameters and a learning rate will do as well."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn, optim

from planish.registry import Registry

Factory = Callable[..., optim.Optimizer]
"""`factory(parameters or parameter groups, lr=...)`."""

optimizers = Registry(
    "optimizer",
    {"adamw": "planish.training.optimizers:adamw", "sgd": "planish.training.optimizers:sgd"},
)


def adamw(parameters: Iterable[dict[str, Any]], lr: float) -> optim.AdamW:
    """AdamW (arXiv 1711.05101), fused into one kernel where the device has it."""
    return optim.AdamW(parameters, lr=lr, fused=True)


def sgd(parameters: Iterable[dict[str, Any]], lr: float) -> optim.SGD:
    """Gradient descent with Nesterov's momentum of 0.9."""
    return optim.SGD(parameters, lr=lr, momentum=0.9, nesterov=True)


def groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups in which only what has two axes or more decays: no bias, no norm, no scale."""
    given = list(parameters)
    matrices, others = [p for p in given if p.dim() > 1], [p for p in given if p.dim() <= 1]
    sized = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in sized if group["params"]]
