from __future__ import annotations

import torch
from torch import nn

import planish
from planish.training.planning.fold import fold
from tests.training.planning.models import Block, small


def test_blocks_fold_onto_the_first() -> None:
    graph = small(layers=3)
    found = fold(graph)
    assert found.blocks == (("blocks.0", "blocks.1", "blocks.2"),)
    kept = {node for node in graph.fx.nodes if found.stands[node] is node}
    names = {str(node.target) for node in kept if node.op == "get_attr"}
    assert "blocks.0.up.weight" in names
    assert "head.weight" in names
    assert not any(name.startswith(("blocks.1", "blocks.2")) for name in names)


def test_blocks_of_another_width_stay_apart() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([Block(16, 4), Block(16, 4), Block(16, 2), Block(16, 4)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for block in self.blocks:
                x = block(x)
            return x

    found = fold(planish.capture(Two(), (torch.randn(2, 4, 16),)))
    assert found.blocks == (("blocks.0", "blocks.1", "blocks.3"), ("blocks.2",))
