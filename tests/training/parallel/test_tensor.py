from __future__ import annotations

import pytest
import torch
from torch import nn

import planish
from planish.errors import OptionError, UnknownName
from planish.training.parallel.tensor import megatron, named
from tests.training.parallel import networks


def test_megatron_is_read_off_the_channels() -> None:
    graph, _ = networks.captured("gpt")
    found = megatron(graph, 2)
    block = {name.removeprefix("blocks.3."): axis for name, axis in found.items() if name.startswith("blocks.3.")}
    columns = {f"{layer}.{kind}": 0 for layer in ("q", "k", "v", "up") for kind in ("weight", "bias")}
    assert block == {**columns, "o.weight": 1, "down.weight": 1}
    assert not any(name.startswith(("wte", "head", "norm")) for name in found)


def test_a_fused_projection_is_left_whole() -> None:
    graph, _ = networks.captured("vit")
    assert {name.split(".", 2)[2] for name in megatron(graph, 2)} == {
        "mlp.fc1.weight",
        "mlp.fc1.bias",
        "mlp.fc2.weight",
    }


def test_channels_that_do_not_divide() -> None:
    graph, _ = networks.captured("gpt")
    with pytest.raises(OptionError, match=r"divided by 3: 4 heads of blocks.0.q"):
        megatron(graph, 3)
    alone = planish.capture(nn.Linear(4, 4), (torch.zeros(2, 4),))
    with pytest.raises(OptionError, match=r"no channels of the model can be divided[\s\S]*fsdp instead"):
        megatron(alone, 2)


def test_patterns_name_parameters() -> None:
    tensors = dict(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 4)).named_parameters())
    assert named({"*.weight": 0, "1.weight": 1}, tensors, 2) == {"0.weight": 0, "1.weight": 1}
    with pytest.raises(UnknownName, match=r"unknown parameter '2\.weight'"):
        named({"2.weight": 0}, tensors, 2)
    with pytest.raises(OptionError, match="no axis 1"):
        named({"0.bias": 1}, tensors, 2)
    with pytest.raises(OptionError, match=r"6 along axis 0 cannot be divided by tp = 4"):
        named({"0.weight": 0}, tensors, 4)
