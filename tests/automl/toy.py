"""A search that takes milliseconds, for tests of what surrounds it; and a worker to kill."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch
from torch import nn

import planish
from planish import Recipe
from planish.automl import each
from planish.automl.search import Found, search
from planish.compress import Quantize

torch.set_num_threads(1)
BITS = ("int2", "int3", "int4", "int6", "int8")


def graph(depth: int = 3) -> planish.Graph:
    torch.manual_seed(0)
    return planish.capture(nn.Sequential(*(nn.Linear(6, 6) for _ in range(depth))), (torch.randn(2, 6),))


def recipe() -> Recipe:
    return Recipe(Quantize(weights=each(*BITS)))


def fidelity(model) -> float:
    """How near the output is to the one of the first trial's weights: deterministic, between 0 and 1."""
    torch.manual_seed(1)
    x = torch.randn(16, 6)
    exact = _exact()(x)
    return 1 - float((model(x) - exact).square().mean() / exact.square().mean())


def _exact() -> planish.Graph:
    if not hasattr(_exact, "graph"):
        _exact.graph = graph()
    return _exact.graph


def size(model) -> float:
    """How large the output is."""
    torch.manual_seed(1)
    return float(model(torch.randn(16, 6)).square().mean())


def slow(model) -> float:
    """As `fidelity`, taking a while."""
    time.sleep(0.02)
    return fidelity(model)


def met(model) -> float:
    """As `fidelity`, once a second process of this search is at work: for searches of several workers."""
    folder = Path(os.environ["TOY_MEETING"])
    (folder / str(os.getpid())).touch()
    patience = time.monotonic() + 120
    while len(list(folder.iterdir())) < 2:
        if time.monotonic() > patience:
            raise TimeoutError("no second worker came")
        time.sleep(0.05)
    return fidelity(model)


def run(budget, **more) -> Found:
    told = {"maximize": fidelity, "minimize": "bits", "strategy": "random", **more}
    return search(recipe(), graph(), budget=budget, **told)


if __name__ == "__main__":  # python -m tests.automl.toy FOLDER TRIALS
    run(int(sys.argv[2]), maximize=slow, run=sys.argv[1], strategy=sys.argv[3] if len(sys.argv) > 3 else "random")
