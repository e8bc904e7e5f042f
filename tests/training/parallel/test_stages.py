"""The stages of a pipeline, run one after the other, are the model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import planish
from planish.errors import OptionError
from planish.graph import Graph
from planish.training.parallel.stages import Stage, cut
from tests.training.parallel import networks


def run(graph: Graph, stages: list[Stage], item: networks.Item) -> Any:
    leaves = graph.flat_inputs(item[0], item[1])
    values: Any = []
    for stage in stages:
        values = stage.graph.module(hierarchical=True)(*values, *(leaves[place] for place in stage.inputs))
    return values


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("family", networks.FAMILIES)
def test_stages_are_the_model(family: str, count: int) -> None:
    graph, data = networks.captured(family)
    stages = cut(graph, count)
    assert len(stages) == count
    assert torch.equal(run(graph, stages, data[0]), graph(*data[0][0], **data[0][1]))
    names = [name for stage in stages for name in stage.graph.tensors if name.endswith("weight")]
    tied = {"wte.weight", "head.weight"}
    assert len({*names}) == len([name for name in names if name not in tied]) + len(tied & {*names})


def test_stages_have_about_equal_work() -> None:
    graph, _ = networks.captured("gpt")
    blocks = [
        {name.split(".")[1] for name in each.graph.tensors if name.startswith("blocks")} for each in cut(graph, 2)
    ]
    assert blocks == [{"0", "1"}, {"2", "3"}]


def test_borders_by_name() -> None:
    graph, data = networks.captured("gpt")
    stages = cut(graph, 2, ["blocks.1"])
    assert not any(name.startswith("blocks.1") for name in stages[0].graph.tensors)
    assert torch.equal(run(graph, stages, data[0]), graph(*data[0][0]))


@pytest.mark.parametrize(
    ("count", "borders", "said"),
    [
        (6, (), r"6 stages, and the model has 4 blocks: blocks\.0"),
        (2, ("blocks.9",), r"no operation comes from the module 'blocks\.9'"),
        (3, ("blocks.2", "blocks.1"), "in the order in which they run"),
    ],
)
def test_what_cannot_be_cut(count: int, borders: tuple[str, ...], said: str) -> None:
    graph, _ = networks.captured("gpt")
    with pytest.raises(OptionError, match=said):
        cut(graph, count, borders)


def test_a_skip_over_stages_is_passed_on() -> None:
    class Skips(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList([torch.nn.Linear(4, 4) for _ in range(4)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first = y = self.layers[0](x)
            for layer in list(self.layers)[1:]:
                y = layer(torch.relu(y))
            return y + first

    graph = planish.capture(Skips(), (torch.randn(3, 4),), dynamic={"x": {0: "batch"}})
    item = ((torch.randn(5, 4),), {}, None)
    stages = cut(graph, 4)
    assert torch.equal(run(graph, stages, item), graph(*item[0]))
    assert [len(stage.graph.inputs) for stage in stages] == [1, 2, 2, 2]  # the rectifier stands before the border
