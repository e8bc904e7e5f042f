"""The page and the lines of a federated training."""

from __future__ import annotations

from pathlib import Path

from planish.report import write
from planish.report.federation import read
from tests.report import runs
from tests.report.test_terminal import printed
from tests.support import require


def test_the_verdict_has_quality_rounds_and_budget(tmp_path: Path) -> None:
    assert (
        read(runs.federation(tmp_path)).sentence
        == "mlp: accuracy 0.7500 after 3 rounds of 4 clients; epsilon 7.50 spent."
    )
    bare = read(runs.federation(tmp_path / "bare", private=False, judged=False))
    assert bare.sentence == "mlp: loss 1 after 3 rounds of 4 clients."
    assert {chart["id"] for chart in bare.figures["charts"]} == {"loss", "bytes"}


def test_figures_are_the_rows(tmp_path: Path) -> None:
    run = runs.federation(tmp_path)
    rows = run.measurements()
    names = {
        "quality": ["accuracy"],
        "loss": ["training_loss"],
        "bytes": ["bytes_sent", "bytes_received"],
        "epsilon": ["epsilon"],
    }
    charts = {chart["id"]: chart["lines"] for chart in read(run).figures["charts"]}
    assert charts.keys() == names.keys()
    for chart, lines in charts.items():
        for name, line in zip(names[chart], lines, strict=True):
            found = [rows[index] for index in line["rows"]]
            assert {row.name for row in found} == {name}
            assert line["x"] == [row.details["round"] for row in found] == [1, 2, 3]
            assert line["y"] == [row.value for row in found]


def test_sums_options_and_refusals(tmp_path: Path) -> None:
    view = read(runs.federation(tmp_path))
    assert view.total("bytes_sent") == "24.6\u202fkB"
    assert view.options == {
        "model": "mlp",
        "fresh": "yes",
        "clients": "4",
        "rounds": "3",
        "privacy": "noise=1,clip=0.5",
    }
    assert view.refused == ["round 2, client 3: its update is not finite"]
    require("plotly")
    text = write(tmp_path).read_text()
    assert view.refused[0] in text
    assert "What privacy it spent" in text


def test_rounds_that_are_missing_are_said(tmp_path: Path) -> None:
    run = runs.federation(tmp_path, rounds=1, private=False)
    assert read(run).missing == 2
    assert "2 rounds are missing" in printed(run)
    require("plotly")
    text = write(tmp_path).read_text()
    assert "This training is not complete." in text
    assert "What privacy it spent" not in text
