"""`plan="auto"`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import planish
from planish.errors import OptionError, UnknownName
from planish.training import Training, train
from planish.training.planning.automatic import automatic, here

ITEMS = [((torch.randn(8, 16),), {}, torch.randint(0, 4, (8,))) for _ in range(3)]


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))


def test_all_devices_are_planned_for(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = planish.capture(model(), ITEMS[0][0], dynamic={"input": {0: "batch"}})
    assert automatic(graph, 8, devices=4, hardware="h100-sxm").devices == 4
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert automatic(graph, 8, hardware="h100-sxm").devices == 2
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(OptionError, match="each process would measure the CPU for itself"):
        automatic(graph, 8)


def test_the_gpu_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name, wanted in {"NVIDIA H200": "h200-sxm", "NVIDIA H100 80GB HBM3": "h100-sxm"}.items():
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda name=name: name)
        assert here() == wanted
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Voodoo 2")
    with pytest.raises(UnknownName, match="Voodoo 2"):
        here()


@pytest.mark.long
@pytest.mark.xdist_group("processes")
def test_a_training_that_is_planned_is_the_same() -> None:
    options = Training(steps=3)
    planned, plain = train(model(), ITEMS, options, plan="auto"), train(model(), ITEMS, options)
    for mine, its in zip(planned.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, its)
