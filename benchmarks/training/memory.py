"""The peak memory of a training step, predicted without running it, against what PyTorch counted on the CPU.

python -m benchmarks.training.memory            # judge; writes results/training/memory.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from planish import capture, models
from planish.flow.batch import call_of
from planish.graph import Graph
from planish.record import environment
from planish.training.backward import peak_memory, step_cost

RESULTS = Path(__file__).parents[1] / "results" / "training" / "memory.json"
NAMES = ("mlp", "convnet", "resnet18", "vit_tiny", "minilm", "gpt")
BATCHES = {"resnet18": (8, 16)}
"""Rows of a step: 8 and 32, but for what would take long."""


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norm1, self.norm2 = heads, nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down, self.drop = nn.Linear(width, 4 * width), nn.Linear(4 * width, width), nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        parts = (
            each.unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in self.qkv(self.norm1(x)).chunk(3, dim=-1)
        )
        y = functional.scaled_dot_product_attention(*parts, is_causal=True)
        x = x + self.drop(self.out(y.transpose(1, 2).flatten(2)))
        return x + self.drop(self.down(functional.gelu(self.up(self.norm2(x)))))


class GPT(nn.Module):
    """A decoder of 4 blocks, 256 wide, with 8,000 words; its head is tied to its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(8000, 256), nn.Embedding(64, 256)
        self.blocks = nn.ModuleList([Block(256, 4) for _ in range(4)])
        self.norm, self.head = nn.LayerNorm(256), nn.Linear(256, 8000, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)).transpose(1, 2)


def captured(name: str) -> Graph:
    if name == "gpt":
        torch.manual_seed(0)
        ids = torch.randint(0, 8000, (2, 64))
        return capture(GPT().eval(), (ids,), dynamic={"ids": {0: "batch"}}, training=True)
    task = models.get(name)()
    return capture(task.model, (task.args, task.kwargs), dynamic=task.dynamic, training=True)


def target(name: str, rows: int) -> tuple[Tensor | None, str]:
    """Classes where the model has some, and the loss."""
    if name == "gpt":
        return torch.randint(0, 8000, (rows, 64)), "cross_entropy"
    classes = {"mlp": 10, "convnet": 10, "resnet18": 1000, "vit_tiny": 1000}.get(name)
    return (torch.randint(0, classes, (rows,)), "cross_entropy") if classes else (None, "mse")


def judged(name: str, graph: Graph, rows: int) -> dict[str, Any]:
    call = call_of(graph, rows)
    wanted, loss = target(name, rows)
    item = (call.args, call.kwargs, wanted)
    cost = step_cost(graph, item, rows, loss)
    measured = peak_memory(graph, item, loss)
    return {
        "model": name,
        "batch": rows,
        "loss": loss,
        "predicted": cost.trace.peak,
        "measured": measured,
        "error": cost.trace.peak / measured - 1,
        "at": " ".join(cost.trace.peak_at),
        "activations": cost.activations,
    }


def main() -> None:
    found: list[dict[str, Any]] = []
    for name in NAMES:
        graph = captured(name)
        for rows in BATCHES.get(name, (8, 32)):
            row = judged(name, graph, rows)
            found.append(row)
            print(
                f"{name:9} batch {rows:3}  predicted {row['predicted'] / 1e6:9.3f} MB  "
                f"measured {row['measured'] / 1e6:9.3f} MB  {row['error']:+8.2%}",
                flush=True,
            )
    errors = [abs(row["error"]) for row in found]
    summary = {"rows": len(found), "mean": float(np.mean(errors)), "worst": max(errors)}
    print(f"{len(found)} steps: mean {summary['mean']:.2%}, worst {summary['worst']:.2%}")
    kept = {"environment": environment(0), "threads": torch.get_num_threads(), "summary": summary, "rows": found}
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
