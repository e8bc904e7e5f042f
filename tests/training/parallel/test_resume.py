"""A training that stops goes on with other processes and another plan, and ends where it would have ended."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributed as dist

from planish.errors import UserError
from planish.graph import Graph
from planish.training import Checkpoints, Moment, Training
from planish.training.engine import named_parameters
from planish.training.loop import Loop
from planish.training.losses import cross_entropy
from planish.training.parallel import Plan
from planish.training.parallel.spread import Spread
from planish.training.start import OfTarget
from tests.training.parallel import networks
from tests.training.parallel.pool import Pool

pytestmark = pytest.mark.xdist_group("processes")
OPTIONS = Training(steps=16, learning_rate=1e-2, average=0.9)
PAIRS = [
    (Plan(fsdp=4), Plan(tp=2)),
    (Plan(tp=2), Plan(pp=2, microbatches=2)),
    (Plan(pp=2, schedule="zero-bubble", microbatches=2), Plan(fsdp=2)),
    (Plan(dp=2), Plan()),
]
EACH = [*(pytest.param(*pair, marks=pytest.mark.long) for pair in PAIRS[:-1]), PAIRS[-1]]


class Stop:
    """Ends a training after a step, on every process, as a machine that goes down."""

    def __init__(self, step: int, folder: Path) -> None:
        self.step, self.folder, self.losses = step, folder, list[float]()

    def on_step(self, moment: Moment) -> None:
        self.losses.append(moment.loss)
        if moment.step == self.step:
            while not list(self.folder.glob("step-*9")):  # it is written while training goes on
                time.sleep(0.05)
            raise RuntimeError("down")

    def on_epoch(self, moment: Moment) -> None:
        pass

    def on_end(self, moment: Moment) -> None:
        pass


def trained(
    graph: Graph, data: list[networks.Item], plan: Plan, folder: Path, stop: int
) -> tuple[list[float], dict[str, Tensor]] | None:
    watch, engines = Stop(stop, folder), list[Spread]()

    def engine(*given: Any) -> Spread:
        engines.append(Spread(*given, plan, graph))
        return engines[0]

    net = graph.module(hierarchical=True).train()
    checkpoints = Checkpoints(folder, every=3)
    loop = Loop(net, data, OfTarget(cross_entropy), OPTIONS, [watch], checkpoints, engine=engine)
    if stop >= 0:
        with pytest.raises(UserError, match="down"):
            loop.run()
        return None
    loop.run()
    values = engines[0].gathered()
    return (watch.losses, values) if dist.get_rank() == 0 else None


@pytest.fixture(scope="module")
def whole() -> tuple[list[float], dict[str, Tensor]]:
    graph, data = networks.captured("gpt")
    watch, net = Stop(-1, Path()), graph.module().train()
    Loop(net, data, OfTarget(cross_entropy), OPTIONS, [watch]).run()
    return watch.losses, {name: each.detach() for name, each in named_parameters(net).items()}


def agrees(found: Any, whole: Any, first: int) -> None:
    assert found[0] == pytest.approx(whole[0][first:], rel=1e-10)
    for name, tensor in whole[1].items():
        torch.testing.assert_close(found[1][name], tensor, rtol=0, atol=1e-10 * float(tensor.abs().max()))


@pytest.mark.parametrize(("before", "after"), EACH, ids=str)
def test_another_plan_goes_on(pool: Pool, whole: Any, tmp_path: Path, before: Plan, after: Plan) -> None:
    pool.run(trained, *networks.captured("gpt"), before, tmp_path, 11, processes=before.devices)
    found = pool.run(trained, *networks.captured("gpt"), after, tmp_path, -1, processes=after.devices)[0]
    agrees(found, whole, first=9)


@pytest.mark.long
def test_a_lost_shard_gives_way_to_the_checkpoint_before(pool: Pool, whole: Any, tmp_path: Path) -> None:
    pool.run(trained, *networks.captured("gpt"), Plan(fsdp=2), tmp_path, 11, processes=2)
    *_, last = sorted(tmp_path.glob("step-*[0-9]"))
    assert last.name == "step-000000009"
    shards = sorted(last.glob("*.safetensors"))
    assert len(shards) == 2
    shards[1].unlink()
    agrees(pool.run(trained, *networks.captured("gpt"), Plan(fsdp=2), tmp_path, -1, processes=2)[0], whole, first=6)
