"""The page and the lines of a training."""

from __future__ import annotations

from pathlib import Path

import pytest

from planish.report import write
from planish.report.training import read
from tests.report import runs
from tests.report.test_terminal import printed
from tests.support import require


def test_the_verdict_has_metric_epochs_time_and_plan(tmp_path: Path) -> None:
    view = read(runs.training(tmp_path))
    assert view.sentence == "mlp: accuracy 0.5000 → 0.8750 after 3 epochs in 12.5\u202fs by fsdp 2 × tp 2."
    assert view.tone == "better"
    assert read(runs.training(tmp_path / "worse", better=False)).tone == "worse"


def test_the_figure_is_the_rows(tmp_path: Path) -> None:
    run = runs.training(tmp_path)
    (chart,) = read(run).figures["charts"]
    (line,) = chart["lines"]
    rows = run.measurements()
    assert line["x"] == [1, 2, 3]
    assert [rows[index].value for index in line["rows"]] == line["y"] == [2.25, 0.75, 0.00025]
    assert line["texts"][-1] == "0.000250"  # a small loss keeps its digits


def test_metrics_stand_with_the_one_that_decides_first(tmp_path: Path) -> None:
    assert [each.label for each in read(runs.training(tmp_path)).metrics] == ["Accuracy", "Sqnr"]


@pytest.mark.parametrize(
    ("plan", "said"),
    [("", "one process"), ('precision = "bf16"', "one process"), ("pp = 4", "pp 4"), ("=", "plan.toml")],
)
def test_a_plan_is_said_by_its_axes(tmp_path: Path, plan: str, said: str) -> None:
    assert read(runs.training(tmp_path, plan=plan)).spread == said


def test_one_that_was_stopped_says_so(tmp_path: Path) -> None:
    run = runs.training(tmp_path, ended=False)
    assert read(run).sentence == "mlp: loss 2.25 → 0.7500 after 2 epochs by fsdp 2 × tp 2; it is not at its end."
    assert "goes on from the last checkpoint" in printed(run)
    require("plotly")
    assert "This training is not at its end." in write(tmp_path).read_text()


def test_one_that_had_nothing_left_to_do_has_no_figure(tmp_path: Path) -> None:
    run = runs.training(tmp_path)
    rows = [row for row in run.measurements() if row.name != "training_loss"]
    run.drop("train")
    run.add(rows, "train")
    view = read(run)
    assert view.figures == {}
    assert "after 60 steps" in view.sentence
    require("plotly")
    assert "went on from a checkpoint" in write(tmp_path).read_text()
