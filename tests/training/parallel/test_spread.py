"""A plan computes what one process computes: losses, gradients' lengths and final parameters over 20 steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributed as dist

from planish.graph import Graph
from planish.training import Moment, Training
from planish.training.engine import named_parameters
from planish.training.loop import Loop
from planish.training.losses import cross_entropy
from planish.training.parallel import Plan
from planish.training.parallel.spread import Spread
from planish.training.start import OfTarget
from tests.training.parallel import networks
from tests.training.parallel.pool import Pool

pytestmark = pytest.mark.xdist_group("processes")
STEPS = 20
OPTIONS = Training(steps=STEPS, learning_rate=1e-2)
QUICK = [
    Plan(dp=2),
    Plan(fsdp=2, microbatches=2, recompute="blocks.*"),
    Plan(tp=2),
    Plan(pp=2, schedule="zero-bubble", microbatches=4),
]
DATA = [Plan(dp=2), Plan(fsdp=2), Plan(fsdp=4), Plan(dp=2, fsdp=2), Plan(fsdp=2, microbatches=2)]
PIPELINES = [
    Plan(pp=2, schedule=schedule, microbatches=4)  # type: ignore[arg-type]
    for schedule in ("gpipe", "1f1b", "interleaved", "interleaved-zero-bubble", "zero-bubble")
]
MIXED = [
    Plan(fsdp=2, pp=2, microbatches=2),
    Plan(dp=2, pp=2, schedule="zero-bubble", microbatches=2),
    Plan(pp=4, microbatches=4),
]
TENSOR = [
    Plan(tp=2),
    Plan(tp=4),
    Plan(fsdp=2, tp=2),
    Plan(dp=2, tp=2),
    Plan(tp=2, pp=2, microbatches=2),
    Plan(fsdp=2, tp=2, pp=2, microbatches=2),
]
EVERY = [
    *(("gpt", plan) for plan in (*DATA, *PIPELINES, *MIXED, *TENSOR) if plan not in QUICK),
    *(("vit", plan) for plan in (*DATA, *PIPELINES, *MIXED, *TENSOR)),
    *((family, plan) for family in ("cnn", "gnn") for plan in (*DATA, *PIPELINES, *MIXED)),
    *(("gnn", plan) for plan in TENSOR[:3]),
]
Result = tuple[list[tuple[float, float]], dict[str, Tensor]]


class Watch:
    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []

    def on_step(self, moment: Moment) -> None:
        self.seen.append((moment.loss, moment.length))

    def on_epoch(self, moment: Moment) -> None:
        pass

    def on_end(self, moment: Moment) -> None:
        pass


def alone(graph: Graph, data: Any, training: Training) -> Result:
    watch, net = Watch(), graph.module().train()
    Loop(net, data, OfTarget(cross_entropy), training, callbacks=[watch]).run()
    return watch.seen, {name: each.detach() for name, each in named_parameters(net).items()}


def spread(graph: Graph, data: Any, training: Training, plan: Plan) -> Result | None:
    watch, net = Watch(), graph.module(hierarchical=True).train()
    engines: list[Spread] = []

    def engine(*given: Any) -> Spread:
        engines.append(Spread(*given, plan, graph))
        return engines[0]

    Loop(net, data, OfTarget(cross_entropy), training, callbacks=[watch], engine=engine).run()
    values = engines[0].gathered()
    return (watch.seen, values) if dist.get_rank() == 0 else None


def run(pool: Pool, family: str, plan: Plan, dtype: torch.dtype = torch.float64) -> Result:
    graph, data = networks.captured(family, dtype)
    return pool.run(spread, graph, data, OPTIONS, plan, processes=plan.devices)[0]


def check(found: Result, wanted: Result, loss: float, parameters: float) -> None:
    assert len(found[0]) == len(wanted[0]) == STEPS
    for mine, its in zip(found[0], wanted[0], strict=True):
        assert mine == pytest.approx(its, rel=loss)
    assert {name for name, _ in found[1].items()} >= wanted[1].keys()
    for name, tensor in wanted[1].items():
        torch.testing.assert_close(found[1][name], tensor, rtol=0, atol=parameters * float(tensor.abs().max()))


@pytest.fixture(scope="module")
def references() -> dict[Any, Result]:
    return {}


def reference(known: dict[Any, Result], family: str, dtype: torch.dtype) -> Result:
    if (family, dtype) not in known:
        graph, data = networks.captured(family, dtype)
        known[family, dtype] = alone(graph, data, OPTIONS)
    return known[family, dtype]


@pytest.mark.parametrize("plan", QUICK, ids=str)
def test_a_plan_changes_nothing(pool: Pool, references: dict[Any, Result], plan: Plan) -> None:
    found = run(pool, "gpt", plan)
    check(found, reference(references, "gpt", torch.float64), 1e-10, 1e-10)


@pytest.mark.long
@pytest.mark.parametrize(("family", "plan"), EVERY, ids=lambda value: str(value))
def test_every_plan_changes_nothing_of_any_family(
    pool: Pool, references: dict[Any, Result], family: str, plan: Plan
) -> None:
    found = run(pool, family, plan)
    check(found, reference(references, family, torch.float64), 1e-10, 1e-10)


@pytest.mark.long
@pytest.mark.parametrize("plan", [DATA[1], PIPELINES[1], TENSOR[0], TENSOR[-1]], ids=str)
def test_float32_agrees_too(pool: Pool, references: dict[Any, Result], plan: Plan) -> None:
    found = run(pool, "gpt", plan, torch.float32)
    wanted = reference(references, "gpt", torch.float32)
    # Softmax ignores a key's bias: its gradient is rounding alone, which AdamW divides by its own size.
    decided = {name: value for name, value in wanted[1].items() if not name.endswith(".k.bias")}
    assert len(decided) == len(wanted[1]) - 4
    check(found, (wanted[0], decided), 1e-5, 1e-5)
