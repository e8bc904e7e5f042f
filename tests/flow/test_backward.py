from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import planish
from planish import flow
from planish.cli import main
from planish.errors import ModelError
from planish.flow import backward
from planish.record import Run


def quiet(done: int, total: int, what: str) -> None:
    """Progress that nobody watches."""


def test_a_step_is_predicted_measured_and_kept(tmp_path: Path) -> None:
    cost, measured = backward.analyze(Run(tmp_path), flow.resolve("mlp", batch=64, training=True), quiet)
    assert (cost.batch, cost.loss) == (64, "cross_entropy")
    assert cost.trace.peak == pytest.approx(measured, rel=0.1)
    rows = Run(tmp_path).measurements()
    peaks = {row.source: row.value for row in rows if row.name == "training_peak_memory" and not row.subject}
    assert peaks == {"modeled": cost.trace.peak, "measured": measured}
    assert {row.where for row in rows if row.name == "training_forward"} >= {"", "layers.0", "layers.1", "layers.2"}
    backward.analyze(Run(tmp_path), flow.resolve("mlp", batch=64, training=True), quiet)
    assert len(Run(tmp_path).measurements()) == len(rows)  # replaced, not added


def test_a_graph_of_a_file_that_is_for_evaluation_is_refused(tmp_path: Path) -> None:
    graph = planish.capture(nn.Linear(4, 2), (torch.randn(3, 4),), training=False)
    graph.save(tmp_path / "small.planish")
    source = flow.resolve(str(tmp_path / "small.planish"), training=True)
    with pytest.raises(ModelError, match="evaluation only"):
        backward.analyze(Run(tmp_path / "run"), source, quiet)


def test_the_command_tells_both_peaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["analyze", "mlp", "--training", "--run", str(tmp_path)])
    said = capsys.readouterr().out
    assert "predicted" in said
    assert "measured on this CPU" in said
