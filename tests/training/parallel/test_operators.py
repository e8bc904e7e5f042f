"""Operations on distributed tensors give what they give on whole ones."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.experimental import implicit_replication

import planish
from planish.formats import get
from planish.graph.cast import cast
from planish.training import Training
from planish.training.engine import named_parameters
from planish.training.loop import Loop
from planish.training.losses import cross_entropy
from planish.training.parallel import Plan, operators
from planish.training.parallel.spread import Spread
from planish.training.start import OfTarget
from tests.training.parallel.pool import Pool

pytestmark = pytest.mark.xdist_group("processes")


def sharded(name: str, axis: int | None, kind: str) -> tuple[bool, int]:
    operators.register()
    torch.manual_seed(1)
    x = torch.randn(4, 64)
    format = get(name.removesuffix(".d"))  # noqa: A001  # its own word
    format = {"tensor": format.per_tensor, "channel": format.per_channel}[kind]() if kind else format  # noqa: A001
    format = format.dynamic() if name.endswith(".d") else format  # noqa: A001
    parameters = format.parameters(x)
    wanted = cast(x, format, parameters)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    spread = distribute_tensor(x, mesh, [Replicate() if axis is None else Shard(axis)])
    with implicit_replication(), CommDebugMode() as talk:
        found = cast(spread, format, parameters)
    moved = sum(talk.get_comm_counts().values())
    return torch.equal(found.full_tensor(), wanted), moved  # type: ignore[attr-defined]


@pytest.mark.parametrize("axis", [0, 1, None])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((each, "") for each in ("mxfp4", "nvfp4", "q3.4", "e4m3fn")),
        *(("int8", kind) for kind in ("tensor", "channel")),
        ("int8.d", "tensor"),
    ],
)
def test_cast_of_a_divided_tensor(pool: Pool, name: str, kind: str, axis: int | None) -> None:
    for equal, _ in pool.run(sharded, name, axis, kind, processes=2):
        assert equal


@pytest.mark.parametrize(("name", "kind", "axis"), [("int8", "tensor", 0), ("int8", "channel", 0), ("q3.4", "", 1)])
def test_stored_scales_need_no_word_between_devices(pool: Pool, name: str, kind: str, axis: int) -> None:
    assert pool.run(sharded, name, axis, kind, processes=2) == [(True, 0)] * 2


class Distances(nn.Module):
    """`cdist`, which DTensor does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)
        self.centers = nn.Parameter(torch.randn(5, 4))

    def forward(self, x: Tensor) -> Tensor:
        return -torch.cdist(self.down(torch.relu(self.up(x))), self.centers)


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
