"""The digits cell space: 625 networks of one cell, each trained with three seeds.

    python -m benchmarks.search.cells        # trains what results/search/cells.json lacks; half an hour of one core

A cell has four nodes and four edges, 0→1, 0→2, 1→2 and 1→3; each edge carries one of five operations, a node is the sum
of what enters it, and the output is nodes 2 and 3 side by side. A network is a stem, a cell, a transition to half the
side, the same cell again with weights of its own, a global mean and a linear layer. A point is `{edge: operation}`, for
instance `{"0-1": "conv3x3", "0-2": "skip", "1-2": "none", "1-3": "avgpool"}`.

Networks train on the 1,000 training digits. `valid` is the accuracy on the 297 of the calibration and the validation
split: what a search may see. `test` is that on the 500 of the evaluation split: what it is judged by.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from planish.models.digits import digits
from planish.record import environment

EDGES = ((0, 1), (0, 2), (1, 2), (1, 3))
NAMES = tuple(f"{start}-{end}" for start, end in EDGES)
OPERATIONS = ("none", "skip", "conv1x1", "conv3x3", "avgpool")
CHANNELS = 8
SIDE = 8
SEEDS = (0, 1, 2)
EPOCHS, BATCH, RATE, DECAY = 6, 100, 2e-2, 1e-2
COUNTS = (297, 500)  # digits that `valid` and `test` are shares of
RESULT = Path(__file__).parents[1] / "results" / "search" / "cells.json"

Point = Mapping[str, str]


def points() -> list[dict[str, str]]:
    """All 625, the last edge fastest."""
    return [dict(zip(NAMES, chosen, strict=True)) for chosen in itertools.product(OPERATIONS, repeat=len(NAMES))]


class Nothing(nn.Module):
    """The absent edge: zeros of the input's shape."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


def convolution(inputs: int, outputs: int, side: int) -> nn.Sequential:
    """Convolution, batch norm, ReLU; the size stays."""
    layer = nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


def operation(name: str, channels: int = CHANNELS) -> nn.Module:
    """What an edge of that name computes: `(batch, channels, side, side)` to the same shape."""
    if name == "none":
        return Nothing()
    if name == "skip":
        return nn.Identity()
    if name == "avgpool":
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    return convolution(channels, channels, {"conv1x1": 1, "conv3x3": 3}[name])


class Cell(nn.Module):
    """Four nodes. `(batch, channels, side, side)` to `(batch, 2 * channels, side, side)`.

    Args:
        point: The operation of each edge.
        channels: Of every node.
    """

    def __init__(self, point: Point, channels: int = CHANNELS) -> None:
        super().__init__()
        self.edges = nn.ModuleDict({name: operation(point[name], channels) for name in NAMES})

    def forward(self, x: Tensor) -> Tensor:
        nodes: list[Tensor | None] = [x, None, None, None]
        for (start, end), name in zip(EDGES, NAMES, strict=True):
            entering = self.edges[name](nodes[start])
            nodes[end] = entering if nodes[end] is None else nodes[end] + entering
        return torch.cat([node for node in nodes[2:] if node is not None], 1)


class Network(nn.Module):
    """Digits `(batch, 1, 8, 8)` to scores `(batch, 10)`, with two copies of a cell.

    Args:
        point: The operation of each edge, in both cells.
        channels: Of every node.
    """

    def __init__(self, point: Point, channels: int = CHANNELS) -> None:
        super().__init__()
        self.stem = convolution(1, channels, 3)
        self.first = Cell(point, channels)
        self.transition = nn.Sequential(nn.MaxPool2d(2), convolution(2 * channels, channels, 1))
        self.second = Cell(point, channels)
        self.head = nn.Linear(2 * channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.transition(self.first(self.stem(x)))).mean((2, 3)))


def macs(point: Point, channels: int = CHANNELS) -> int:
    """Multiply-accumulates of a digit, exact."""
    sides = SIDE**2 + (SIDE // 2) ** 2
    kernels = {"conv1x1": 1, "conv3x3": 9}
    edges = sum(kernels.get(point[name], 0) for name in NAMES) * channels**2 * sides
    return edges + 9 * channels * SIDE**2 + 2 * channels**2 * (SIDE // 2) ** 2 + 20 * channels


def train(network: nn.Module, seed: int, epochs: int = EPOCHS) -> nn.Module:
    """The recipe: AdamW, one cycle of the learning rate, cross-entropy; the network itself, in evaluation mode.

    Args:
        network: Of the digits `(batch, 1, 8, 8)`; its weights are changed.
        seed: Of the order of the digits. (The weights come from `initialized`.)
        epochs: Times through the 1,000 training digits.
    """
    images, labels = digits("train", (1, SIDE, SIDE))
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=epochs * (len(images) // BATCH))
    network.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=order).split(BATCH):
            optimizer.zero_grad()
            functional.cross_entropy(network(images[rows]), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def initialized(point: Point, seed: int) -> Network:
    """An untrained network, from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network(point)


def accuracy(network: nn.Module, *splits: str) -> float:
    """Share of the digits of these splits that a network tells right."""
    rows = [digits(split, (1, SIDE, SIDE)) for split in splits]
    images, labels = (torch.cat(parts) for parts in zip(*rows, strict=True))
    with torch.no_grad():
        return float((network(images).argmax(1) == labels).float().mean())


def key(point: Point) -> str:
    """A point in one word for each edge: "conv3x3 skip none avgpool"."""
    return " ".join(point[name] for name in NAMES)


@dataclass(frozen=True)
class Row:
    """A trained cell: an accuracy for each of `SEEDS`.

    Attributes:
        valid: On the calibration and the validation split.
        test: On the evaluation split.
    """

    valid: tuple[float, ...]
    test: tuple[float, ...]


def table() -> dict[str, Row]:
    """What is kept, by `key`."""
    rows = {}
    for line in json.loads(RESULT.read_text(encoding="utf-8"))["cells"] if RESULT.exists() else []:
        *names, valid, test = line.rsplit(maxsplit=2)
        numbers = [tuple(int(count) for count in text.split(",")) for text in (valid, test)]
        rows[" ".join(names)] = Row(*(tuple(n / size for n in row) for row, size in zip(numbers, COUNTS, strict=True)))
    return rows


def main() -> None:
    """Train what is missing, and keep it."""
    torch.set_num_threads(1)
    rows, began = table(), time.process_time()
    for point in points():
        if key(point) not in rows:
            networks = [train(initialized(point, seed), seed) for seed in SEEDS]
            valid = tuple(accuracy(network, "calibration", "validation") for network in networks)
            rows[key(point)] = Row(valid, tuple(accuracy(network, "evaluation") for network in networks))
            if len(rows) % 25 == 0:
                write(rows)
                print(f"{len(rows)} cells, {time.process_time() - began:.0f} s", flush=True)
    write(rows)


def write(rows: Mapping[str, Row]) -> None:
    """The result file, whole or not at all: a line for each cell, with the digits told right by each seed."""
    lines = []
    for name, row in rows.items():
        counts = [
            ",".join(str(round(a * n)) for a in one) for one, n in zip((row.valid, row.test), COUNTS, strict=True)
        ]
        lines.append(" ".join([name, *counts]))
    facts = environment(seed=SEEDS[0], command="python -m benchmarks.search.cells")
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    draft = RESULT.with_suffix(".draft")
    draft.write_text(json.dumps({"environment": facts, "cells": lines}, indent=1) + "\n", encoding="utf-8")
    draft.replace(RESULT)


if __name__ == "__main__":
    main()
