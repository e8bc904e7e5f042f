"""Trackers against stand-ins of the libraries that they pass numbers on to."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from planish.errors import MissingExtra
from planish.training import Moment, mlflow, tensorboard, wandb

MOMENT = Moment(step=3, epoch=1, loss=0.5, learning_rate=1e-3, length=2.0, seconds=1.0, share=0.5)
STEP = {"train/loss": 0.5, "train/learning_rate": 1e-3, "train/gradient_length": 2.0}


def module(name: str, **attributes: object) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(attributes)
    return made


def test_wandb() -> None:
    logged, ended = [], []
    run = SimpleNamespace(log=lambda values, step: logged.append((values, step)), finish=lambda: ended.append(True))
    tracker = wandb(run)
    tracker.on_step(MOMENT)
    tracker.on_epoch(MOMENT)
    tracker.on_end(MOMENT)
    assert logged == [(STEP, 3), ({"train/epoch_loss": 0.5}, 3)]
    assert ended == [True]


def test_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    logged = []
    fake = module("mlflow", log_metrics=lambda values, step: logged.append((values, step)))
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    mlflow().on_step(MOMENT)
    assert logged == [(STEP, 3)]


def test_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    logged = []

    class SummaryWriter:
        def __init__(self, folder: str) -> None:
            self.folder = folder

        def add_scalar(self, name: str, value: float, step: int) -> None:
            logged.append((self.folder, name, value, step))

        def close(self) -> None:
            logged.append("closed")

    fake = module("torch.utils.tensorboard", SummaryWriter=SummaryWriter)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    tracker = tensorboard("runs/a")
    tracker.on_step(MOMENT)
    tracker.on_end(MOMENT)
    assert logged == [*(("runs/a", name, value, 3) for name, value in STEP.items()), "closed"]


@pytest.mark.parametrize(
    ("make", "blocked"), [(lambda: tensorboard("x"), "torch.utils.tensorboard"), (mlflow, "mlflow")]
)
def test_a_missing_library_is_named(make, blocked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, blocked, None)
    with pytest.raises(MissingExtra, match=r"planish\[track\]"):
        make()
