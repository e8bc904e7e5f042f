"""One client's part of a round: train the round's model on its own rows. Knows no Flower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from planish.errors import DataError
from planish.graph import Graph
from planish.training.loop import Loop
from planish.training.losses import TaskLoss
from planish.training.options import Training

STATISTICS = ("running_mean", "running_var")
"""Buffers that training moves: those of batch norms."""


def shared(net: nn.Module) -> dict[str, Tensor]:
    """What travels, by name: the parameters that ask for a gradient, and the statistics of batch norms."""
    learn = {name: p for name, p in net.named_parameters() if p.requires_grad}
    moved = {name: b for name, b in net.named_buffers() if name.rpartition(".")[2] in STATISTICS}
    return {**learn, **moved} if learn else {}


def network(model: nn.Module | Graph) -> nn.Module:
    """A module of its own to train: a graph's, or the user's own."""
    return model.module() if isinstance(model, Graph) else model


class Client:
    """Rows of one owner, and how they are learned from.

    Args:
        net: The network; clients in one process share it, since each starts from what the round gives it.
        items: Batches `(args, kwargs, target)`.
        loss: `loss(output, target) -> scalar`.
        training: What is done in one round.
    """

    def __init__(self, net: nn.Module, items: Sequence[tuple[Any, ...]], loss: TaskLoss, training: Training) -> None:
        self.net, self.items, self.loss, self.training = net, items, loss, training
        self.rows = sum(_count(item) for item in items)

    def train(self, start: Mapping[str, Tensor], seed: int, proximal: float = 0.0) -> tuple[dict[str, Tensor], float]:
        """Train from the round's model.

        Args:
            start: What travels, by name.
            seed: Of the order of the rows and of what is random in the model.
            proximal: Weight of the squared distance to the start (FedProx).

        Returns:
            Copies of what travels, and the mean loss.

        Raises:
            DataError: What came does not fit the network.
            Diverged: The loss became NaN or infinite.
        """
        held = shared(self.net)
        if held.keys() != start.keys():
            odd = min(held.keys() ^ start.keys())
            raise DataError("the server's model is another one than the client's", odd, "the same MODEL everywhere")
        with torch.no_grad():
            for name, tensor in held.items():
                tensor.copy_(start[name])
        anchors = [(p, start[name].to(p)) for name, p in held.items() if p.requires_grad] if proximal else []
        losses: list[float] = []

        def of_item(module: nn.Module, item: tuple[Any, ...]) -> Tensor:
            args, kwargs, target = item
            loss = self.loss(module(*args, **kwargs), target)
            losses.append(float(loss.detach()))
            if not anchors:
                return loss
            return loss + proximal / 2 * torch.stack([(p - anchor).square().sum() for p, anchor in anchors]).sum()

        self.net.train()
        try:
            Loop(self.net, self.items, of_item, replace(self.training, seed=seed)).run()
        finally:
            self.net.eval()
        found = {name: tensor.detach().cpu().clone() for name, tensor in shared(self.net).items()}
        return found, sum(losses) / max(1, len(losses))


def _count(item: tuple[Any, ...]) -> int:
    target = item[2]
    return len(target) if isinstance(target, Tensor) and target.dim() else 1
