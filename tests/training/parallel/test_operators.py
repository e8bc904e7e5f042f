"""Operations on distributed tensors give what they give on whole ones."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import planish
from planish.training import Training
from planish.training.engine import named_parameters
from planish.training.loop import Loop
from planish.training.losses import cross_entropy
from planish.training.parallel import Plan
from planish.training.parallel.spread import Spread
from planish.training.start import OfTarget
from tests.training.parallel.pool import Pool

pytestmark = pytest.mark.xdist_group("processes")


class Distances(nn.Module):
    """`cdist`, which DTensor does not know, and a single number, which FSDP2 does not take."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)
        self.centers = nn.Parameter(torch.randn(5, 4))
        self.temperature = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        return -torch.cdist(self.down(torch.relu(self.up(x))), self.centers) * self.temperature


def distances(plan: Plan | None) -> tuple[dict[str, Tensor], list[str]]:
    torch.manual_seed(0)
    model = Distances().double()
    data = [((torch.randn(8, 4).double(),), {}, torch.randint(0, 5, (8,))) for _ in range(4)]
    graph = planish.capture(model, data[0][0], dynamic={"x": {0: "batch"}})
    engines: list[Any] = []

    def engine(*given: Any) -> Any:
        engines.append(Spread(*given, plan, graph))  # type: ignore[arg-type]
        return engines[0]

    net, options = graph.module(hierarchical=True).train(), Training(steps=4)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if plan is None:
            Loop(net, data, OfTarget(cross_entropy), options).run()
            return {name: each.detach() for name, each in named_parameters(net).items()}, []
        Loop(net, data, OfTarget(cross_entropy), options, engine=engine).run()
    return engines[0].gathered(), [str(each.message) for each in said if "cannot be divided" in str(each.message)]


def test_an_operation_without_a_strategy_is_done_by_all_and_said(pool: Pool) -> None:
    plan = Plan(fsdp=2, tp=2)
    wanted, _ = distances(None)
    for found, said in pool.run(distances, plan, processes=plan.devices):
        assert any("cdist" in each for each in said)
        for name, tensor in wanted.items():
            torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-10)
