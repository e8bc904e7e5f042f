"""The page and the lines of a training step."""

from __future__ import annotations

from pathlib import Path

import pytest

from planish.flow import backward, resolve
from planish.record import Measurement, Run
from planish.report.step import read
from tests.report import runs


def test_the_verdict_has_both_peaks(tmp_path: Path) -> None:
    view = read(runs.step(tmp_path))
    assert (
        view.sentence
        == "mlp: a training step of 8 rows peaks at 19.0\u202fkB predicted, 20.0\u202fkB measured (−5.0\u202f%)."
    )
    assert view.again == (2, "600\u202fFLOP")
    assert (
        view.finding
        == "2.10\u202fkB wait for the backward pass; body.0.in and 3 more keep the most, 450\u202fB each (21\u202f%)."
    )


def test_bars_are_the_rows_and_add_up_to_the_model(tmp_path: Path) -> None:
    run = runs.step(tmp_path)
    view = read(run)
    rows = {(row.name, row.where): row.value for row in run.measurements()}
    assert [bar.path for bar in view.bars if not bar.own] == [
        f"body.{i}.{name}" for i in (0, 1) for name in ("in", "out")
    ] + ["head"]
    for name in ("kept", "forward", "backward"):
        assert sum(getattr(bar, name) for bar in view.bars) == rows[f"training_{name}", ""]
        assert all(getattr(bar, name) == rows[f"training_{name}", bar.path] for bar in view.bars if not bar.own)
    assert [(bar.name, bar.kept, bar.saved["bf16"]) for bar in view.bars if bar.own] == [("the model itself", 200, 100)]
    assert [each["label"] for each in view.figures["step"]][-2:] == ["head", "the model itself"]


def test_a_large_model_is_shown_by_its_blocks(tmp_path: Path) -> None:
    run = Run(tmp_path)
    paths = ["", "body", *(f"body.{i}" for i in range(12)), *(f"body.{i}.{part}" for i in range(12) for part in "abc")]
    sizes = [36, 36, *[3] * 12, *[1] * 36]
    run.add(
        [Measurement("training_kept", size, "B", "exact", where=path) for path, size in zip(paths, sizes, strict=True)],
        "training step",
    )
    run.add(
        [Measurement("training_forward", 0, "FLOP", "exact"), Measurement("training_backward", 0, "FLOP", "exact")],
        "training step",
    )
    view = read(run)
    assert [bar.path for bar in view.bars] == [f"body.{i}" for i in range(12)]
    assert view.figures["step"][3]["label"] == "body.3"  # not a bare number
    assert view.saved("body", "bf16") is None


def test_what_the_analysis_wrote_is_read(tmp_path: Path) -> None:
    cost, measured = backward.analyze(Run(tmp_path), resolve("mlp", training=True), lambda *_: None)
    view = read(Run(tmp_path))
    assert view.peaks["predicted"].m.value == cost.trace.peak
    assert view.peaks["measured"].m.value == measured
    assert sum(bar.kept for bar in view.bars) == pytest.approx(cost.activations)
    assert {path: found["kept"].m.value for path, found in view.parts.items()} == {
        path: part.kept for path, part in cost.by_path().items() if part.forward or part.kept
    }
