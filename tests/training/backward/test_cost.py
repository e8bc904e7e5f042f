from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import planish
from planish.errors import ModelError
from planish.training.backward import StepCost, peak_memory, step_cost
from planish.training.engine import Item

ROWS = 16


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(functional.gelu(self.up(self.norm(x))))


class Tower(nn.Module):
    """Blocks of which some may be computed again."""

    def __init__(self, again: frozenset[int] = frozenset()) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(32, 64), nn.Linear(64, 10)
        self.blocks = nn.ModuleList([Block(64) for _ in range(3)])
        self.again = again

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for place, block in enumerate(self.blocks):
            x = checkpoint(block, x, use_reentrant=False, preserve_rng_state=False) if place in self.again else block(x)
        return self.head(x)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm, self.conv2 = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 32, 3)
        self.drop, self.head = nn.Dropout(0.2), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.conv1(x)))
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        return self.head(self.drop(x.mean((2, 3))))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        parts = (each.unflatten(-1, (4, 8)).transpose(1, 2) for each in self.qkv(x).chunk(3, -1))
        y = functional.scaled_dot_product_attention(*parts)
        return self.out(y.transpose(1, 2).flatten(2)).mean(1)


def made(name: str) -> tuple[nn.Module, Item]:
    torch.manual_seed(0)
    model: nn.Module = {"tower": Tower, "net": Net, "attention": Attention}[name]()
    x = {"tower": (ROWS, 32), "net": (ROWS, 3, 24, 24), "attention": (ROWS, 12, 32)}[name]
    return model.eval(), ((torch.randn(x),), {}, torch.randint(0, 10, (ROWS,)))


def costed(name: str) -> tuple[planish.Graph, Item, StepCost]:
    model, item = made(name)
    graph = planish.capture(model, item[0], training=True)
    return graph, item, step_cost(graph, item, ROWS, "cross_entropy")


@pytest.mark.parametrize("name", ["tower", "net"])
def test_flops_are_those_that_torch_counts(name: str) -> None:
    model, item = made(name)
    _, _, cost = costed(name)
    model.train()
    with FlopCounterMode(display=False) as forward:
        loss = functional.cross_entropy(model(*item[0]), item[2])
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    total = cost.by_path()[""]
    assert total.forward == forward.get_total_flops()
    assert total.backward == backward.get_total_flops()
    assert total.forward == 2 * planish.analyze(costed(name)[0]).total.macs


def test_a_product_costs_twice_backward_and_the_first_one_once() -> None:
    parts = costed("tower")[2].by_path()
    assert parts["stem"].backward == parts["stem"].forward == 2 * ROWS * 32 * 64
    assert parts["blocks.1.up"].backward == 2 * parts["blocks.1.up"].forward == 4 * ROWS * 64 * 256
    assert parts["blocks"].forward == sum(parts[f"blocks.{place}"].forward for place in range(3))


def test_attention_on_a_cpu_is_counted() -> None:
    total = costed("attention")[2].by_path()[""]
    scores = 2 * 2 * ROWS * 4 * 12 * 12 * 8
    products = 2 * ROWS * 12 * (32 * 96 + 32 * 10)
    assert total.forward == products + scores
    assert total.backward == 2 * products - 2 * ROWS * 12 * 32 * 96 + 2.5 * scores  # dx of the first is not needed


def test_a_recurrent_layer_is_counted() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(8, 16, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.lstm(x)[0][:, -1]

    item = ((torch.randn(4, 5, 8),), {}, None)
    total = step_cost(planish.capture(Last(), item[0], training=True), item, 4).by_path()[""]
    assert total.forward == 2 * 4 * 5 * 4 * 16 * (8 + 16)
    assert total.backward == 2 * total.forward


@pytest.mark.parametrize("name", ["tower", "net", "attention"])
def test_kept_is_what_autograd_keeps(name: str) -> None:
    model, item = made(name)
    cost = costed(name)[2]
    own = {each.untyped_storage().data_ptr() for each in (*model.parameters(), *model.buffers(), item[0][0], item[2])}
    seen: dict[int, Any] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage  # held, so that no storage is used again
        return tensor

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        functional.cross_entropy(model(*item[0]), item[2])
    assert cost.activations == sum(storage.nbytes() for storage in seen.values())
    assert cost.by_path()[""].kept == cost.activations


@pytest.mark.parametrize("name", ["tower", "attention"])
def test_the_peak_is_the_measured_one(name: str) -> None:
    graph, item, cost = costed(name)
    measured = peak_memory(graph, item, "cross_entropy")
    random_state = 3 * torch.get_rng_state().nbytes  # which the loop keeps for its checkpoints
    assert cost.trace.peak == pytest.approx(measured - random_state, rel=0.05)


def test_the_parts_of_memory() -> None:
    graph, _, cost = costed("tower")
    size = sum(4 * graph.tensors[name].numel() for name in graph.parameter_names)
    assert cost.trace.parameters == cost.trace.gradients == size
    assert cost.trace.optimizer == 2 * size + 4 * len(graph.parameter_names)  # each counts its own steps


def test_recomputation_saves_what_a_checkpoint_saves() -> None:
    _, item = made("tower")

    def alive(model: nn.Module) -> float:
        from torch.profiler import ProfilerActivity, profile

        gc.collect()  # what earlier tests have left would be freed, and counted, meanwhile
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
            output = model(*item[0])
        assert output.requires_grad
        return sum(event.self_cpu_memory_usage for event in found.key_averages())

    saved = alive(Tower()) - alive(Tower(frozenset({1})))
    assert costed("tower")[2].by_path()["blocks.1"].recompute == saved


def test_formats_save_their_bits() -> None:
    total = costed("tower")[2].by_path()[""]
    assert (total.bf16, total.fp8) == (total.kept // 2, total.kept * 3 // 4)
    net = costed("net")[2].by_path()[""]
    assert net.bf16 < net.kept / 2  # indices of a pooling and masks keep their bytes


def test_a_tied_weight_counts_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(50, 16), nn.Linear(16, 50, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.embed(ids)).transpose(1, 2)

    item = ((torch.randint(0, 50, (4, 6)),), {}, torch.randint(0, 50, (4, 6)))
    graph = planish.capture(Tied(), item[0], training=True)
    assert step_cost(graph, item, 4, "cross_entropy").trace.parameters == 4 * 50 * 16


def test_a_graph_for_evaluation_is_refused() -> None:
    model, item = made("tower")
    graph = planish.capture(model, item[0], training=False)
    with pytest.raises(ModelError, match="captured for evaluation only"):
        step_cost(graph, item, ROWS)
