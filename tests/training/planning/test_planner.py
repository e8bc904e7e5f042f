from __future__ import annotations

import math
import time

import pytest

from planish.errors import OptionError
from planish.training.parallel import Plan
from planish.training.parallel.plan import AXES
from planish.training.planning import Cluster, plan, predict
from planish.training.planning.axes import assignments
from tests.training.planning.models import large, small, toy


@pytest.fixture(scope="module")
def graph():
    return large(8)


def test_a_model_that_fits_everywhere_shares_data(graph) -> None:
    found = plan(small(), Cluster.of(toy(), devices=4))
    assert found.plan.devices == 4
    assert found.best.fits
    assert found.best.estimate.seconds <= min(each.estimate.seconds for each in found.others if each.fits)
    assert all(each.why for each in found.others)


def test_a_model_too_large_for_one_device_is_sharded(graph) -> None:
    found = plan(graph, Cluster.of("h100-sxm", devices=8), memory=20e9)
    assert found.best.estimate.peak <= 0.94 * 20e9
    assert found.plan.fsdp * found.plan.tp * found.plan.pp > 1
    assert any("GB too much" in each.why for each in found.others)
    assert sum(row.count for row in found.rows) == 10


def test_a_plan_survives_its_file(graph, tmp_path) -> None:
    found = plan(graph, Cluster.of("h100-sxm", mesh=(2, 2, 2)), memory=20e9)
    found.plan.write(tmp_path / "plan.toml")
    assert Plan.read(tmp_path / "plan.toml") == found.plan


def test_a_mesh_keeps_its_axes_together() -> None:
    cluster = Cluster.of("h100-sxm", mesh=(16, 8, 8))
    found = list(assignments(cluster))
    assert all(math.prod(axes) == 1024 for axes in found)
    assert (16, 8, 8, 1) in found  # dp 16, fsdp 8, tp 8
    assert (8, 1, 8, 16) in found  # dp 8, tp 8, pp 16
    assert not any(4 in axes for axes in found)


def test_stages_are_blocks_in_order(graph) -> None:
    found = plan(graph, Cluster.of("h100-sxm", mesh=(4, 1)), batch=32)
    deep = next(each for each in (found.best, *found.others) if each.plan.pp == 4)
    borders = [int(path.removeprefix("blocks.")) for path in deep.plan.stages]
    assert borders == sorted(borders)
    assert len(borders) == deep.plan.count_stages - 1


def test_bad_meshes_name_what_is_in_the_way(graph) -> None:
    with pytest.raises(OptionError, match=r"pp 9: 9 stages, and the model has 8 blocks: blocks.0, blocks.1"):
        plan(graph, Cluster.of("h100-sxm", mesh=(9,)), batch=1)
    with pytest.raises(OptionError, match=r"tp 5: 5 divides no axis of a parameter; the widest is blocks.0.up.weight"):
        plan(small(), Cluster.of(toy(), mesh=(5, 1)), batch=4)


def test_too_little_memory_says_by_how_much_and_what_would_fit(graph) -> None:
    with pytest.raises(OptionError, match=r"takes \d.* GB more than the 3.76 GB of a device") as caught:
        plan(graph, Cluster.of("h100-sxm", devices=2), memory=4e9)
    assert "--devices 16: fsdp 16, recompute blocks.*" in caught.value.hint or "--devices" in caught.value.hint


def test_the_axes_are_those_of_a_plan() -> None:
    found = plan(small(), Cluster.of(toy(), mesh=(2, 2)), batch=8)
    assert math.prod(getattr(found.plan, name) for name in AXES) == 4


def test_any_plan_can_be_predicted() -> None:
    graph, cluster = small(), Cluster.of(toy(), devices=4)
    found = plan(graph, cluster, batch=16)
    assert predict(graph, found.plan, cluster, 16).seconds == pytest.approx(found.best.estimate.seconds)
    divided = predict(graph, Plan(tp=4), cluster, 16)  # as Megatron-LM does
    assert divided.tensor > 0
    assert divided.compute < predict(graph, Plan(), cluster, 16).compute
    staged = predict(graph, Plan(pp=2, microbatches=4, stages=("blocks.1",)), cluster, 16)
    assert len(staged.memory) == 2
    with pytest.raises(OptionError, match=r"no layer is called 'blocks\.7'"):
        predict(graph, Plan(pp=2, microbatches=4, stages=("blocks.7",)), cluster, 16)


@pytest.mark.long
def test_a_transformer_of_96_layers_takes_seconds() -> None:
    deep = large(96, 4096, 256)
    start = time.process_time()
    plan(deep, Cluster.of("h100-sxm", mesh=(16, 8)), batch=256)
    assert time.process_time() - start < 10
