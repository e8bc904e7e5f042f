"""Quantized and adapted graphs train by a plan as they train alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import distributed as dist

from planish.compress import Adapt, Quantize
from planish.formats import int4, nf4, nvfp4
from planish.graph import Graph
from planish.recipe import Recipe
from planish.training import Training
from planish.training.engine import named_parameters
from planish.training.learned import with_gradient
from planish.training.loop import Loop
from planish.training.losses import cross_entropy
from planish.training.parallel import Plan
from planish.training.parallel.spread import Spread
from planish.training.start import OfTarget
from tests.training.parallel import networks
from tests.training.parallel.pool import Pool

pytestmark = pytest.mark.xdist_group("processes")
OPTIONS = Training(steps=6, learning_rate=1e-3)
RECIPES = {
    "weights by channel": Recipe(Quantize(weights="int8", where="linear")),
    "weights by group": Recipe(Quantize(weights=int4.group(4), where="linear")),
    "activations by tensor": Recipe(Quantize(weights="int8", activations="int8", where="linear")),
    "learned scales of weights": Recipe(Quantize(weights="int8", where="linear")),
    "learned scales of two levels": Recipe(Quantize(weights=nvfp4, where="linear")),
    "adapters": Recipe(Adapt(rank=2, where="linear")),
    "adapters on codes": Recipe(Quantize(weights=nf4.group(8), where="linear"), Adapt(rank=2, where="linear")),
}
PLANS = [Plan(fsdp=2), Plan(tp=2), Plan(pp=2, microbatches=2)]


def compressed(recipe: str) -> tuple[Graph, list[networks.Item]]:
    graph, data = networks.captured("gpt")
    made = RECIPES[recipe](graph, data=[item[:2] for item in data])
    return with_gradient(made, "lsq") if "learned" in recipe else made, data


def spread(graph: Graph, data: list[networks.Item], plan: Plan) -> Any:
    engines: list[Spread] = []

    def engine(*given: Any) -> Spread:
        engines.append(Spread(*given, plan, graph))
        return engines[0]

    net = graph.module(hierarchical=True).train()
    Loop(net, data, OfTarget(cross_entropy), OPTIONS, engine=engine).run()
    values = engines[0].gathered()
    return values if dist.get_rank() == 0 else None


@pytest.mark.parametrize("plan", [PLANS[0], *(pytest.param(p, marks=pytest.mark.long) for p in PLANS[1:])], ids=str)
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_compressed_graph_trains_alike(pool: Pool, recipe: str, plan: Plan) -> None:
    torch.manual_seed(0)
    graph, data = compressed(recipe)
    net = graph.module().train()
    before = {name: each.detach().clone() for name, each in named_parameters(net).items()}
    Loop(net, data, OfTarget(cross_entropy), OPTIONS).run()
    found = pool.run(spread, graph, data, plan, processes=plan.devices)[0]
    bound = 1e-7 if "learned" in recipe else 1e-9  # scales are float32
    for name, tensor in named_parameters(net).items():
        torch.testing.assert_close(found[name], tensor.detach(), rtol=0, atol=bound)
    assert any(not torch.equal(before[name], found[name]) for name in before)
