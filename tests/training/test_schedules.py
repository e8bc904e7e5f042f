"""Schedules against torch's and transformers' own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim import SGD, lr_scheduler

from planish.errors import OptionError, UnknownName
from planish.training import Training
from planish.training.schedules import one_cycle, schedules, warmed
from tests.support import require

STEPS = 50


def rates(make: object) -> list[float]:
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)  # type: ignore[operator]
    found = []
    for _ in range(STEPS):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


def test_cosine_is_torchs() -> None:
    ours = [schedules["cosine"](step / STEPS) for step in range(STEPS)]
    assert ours == pytest.approx(rates(lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS)), abs=1e-6)


def test_linear_is_torchs() -> None:
    ours = [schedules["linear"](step / STEPS) for step in range(STEPS)]
    assert ours == pytest.approx(rates(lambda o: lr_scheduler.PolynomialLR(o, STEPS)), abs=1e-9)


def test_one_cycle_is_torchs() -> None:
    # torch reaches its peak and its end one step before ours: its totals are moved by that step
    theirs = rates(
        lambda o: lr_scheduler.OneCycleLR(
            o, max_lr=1.0, total_steps=STEPS + 1, pct_start=(0.3 * STEPS + 1) / (STEPS + 1), cycle_momentum=False
        )
    )
    assert [one_cycle(step / STEPS) for step in range(STEPS)] == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_warmup_is_transformers(name: str) -> None:
    require("transformers")
    from transformers import optimization

    theirs = getattr(optimization, f"get_{name}_schedule_with_warmup")
    ours = warmed(schedules[name], 5 / STEPS)
    expected = rates(lambda o: theirs(o, 5, STEPS))
    assert [ours(step / STEPS) for step in range(STEPS)] == pytest.approx(expected, abs=1e-6)


def test_options_refuse_what_makes_no_sense() -> None:
    for wrong in (
        {},
        {"epochs": 0},
        {"steps": 1, "learning_rate": 0.0},
        {"steps": 1, "warmup": 1.0},
        {"steps": 1, "average": 1.0},
        {"steps": 1, "precision": "fp8"},
    ):
        with pytest.raises(OptionError):
            Training(**wrong)  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match="cosine"):
        Training(steps=1, schedule="cosin")
    with pytest.raises(UnknownName, match="adamw"):
        Training(steps=1, optimizer="adam")
