"""Plans apply: on 1,024 ranks of a fake process group, and with the same numbers on ranks that are all computed."""

from __future__ import annotations

import pytest
import torch

from planish.errors import OptionError
from planish.training.parallel import Plan
from planish.training.planning import Cluster
from planish.training.planning.planner import Planner
from planish.training.planning.proof import error, local_shapes
from tests.training.planning.models import small, toy


def divided(graph, tp: int) -> Plan:
    planner = Planner(graph, Cluster.of(toy(), devices=tp), 4 * tp, 1e9, "fp32")
    made = Plan(tp=tp, shards=planner._patterns(tp))
    assert made.shards
    return made


@pytest.mark.parametrize("tp", [2, 4])
def test_tensor_parallel_ranks_compute_the_same(tp: int) -> None:
    graph = small(2, torch.float64)
    assert error(graph, divided(graph, tp)) < 1e-12


def test_1024_ranks_hold_their_parts() -> None:
    graph = small()
    made = divided(graph, 4)
    whole = Plan(dp=16, fsdp=4, tp=4, pp=4, microbatches=4, shards=made.shards)
    assert whole.devices == 1024
    found = local_shapes(graph, whole)
    axis = made.shards["blocks.*.up.weight"]
    assert found["blocks.0.up.weight"] == ((8, 32) if axis == 0 else (32, 8))
    assert found["norm.weight"] == (8,)


def test_a_shard_that_does_not_divide_is_refused() -> None:
    with pytest.raises(OptionError, match="cannot be divided by tp = 5"):
        local_shapes(small(), Plan(tp=5, shards={"blocks.*.up.weight": 0}))
