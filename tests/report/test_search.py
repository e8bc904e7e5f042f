"""The page and the ten lines of a search."""

from __future__ import annotations

import json

import pytest

from planish.errors import UserError
from planish.record import Run
from planish.report import write
from planish.report.search import read
from planish.report.terminal import summary


def trial(number: int, accuracy: float, size: float, **more) -> str:
    row = {"unit": "1", "source": "measured"}
    rows = {
        "accuracy": {"name": "accuracy", "value": accuracy, **row},
        "bytes": {"name": "bytes", "value": size, "unit": "B", "source": "exact"},
    }
    point = {"quantize.weights[body.0]": f"int{2 + number % 3}", "quantize.weights[head]": "int8"}
    told = {"number": number, "id": f"point{number}", "state": "complete", "point": point, "rows": rows}
    return json.dumps(
        {**told, "losses": [-accuracy, size], "began": 100.0 + number, "seconds": 0.5, "worker": "here:1:2", **more}
    )


@pytest.fixture
def folder(tmp_path):
    """A search of six trials: two on the front, one failed, one torn."""
    lines = [trial(0, 0.9, 900.0), trial(1, 0.8, 500.0), trial(2, 0.7, 800.0), trial(3, 0.6, 700.0)]
    lines.append(
        json.dumps(
            {"number": 4, "id": "bad", "state": "failed", "error": "Traceback\nValueError: <script>alert(1)</script>"}
        )
    )
    (tmp_path / "trials.jsonl").write_text("\n".join(lines) + '\n{"number": 5, "sta')
    told = {
        "objectives": [["accuracy", "maximize"], ["bytes", "minimize"]],
        "constraints": ["bytes < 1 kB"],
        "space": [
            {"name": "quantize.weights[body.0]", "answers": ""},
            {"name": "quantize.weights[head]", "answers": ""},
        ],
        "strategy": "auto",
        "seed": 0,
        "size": 9,
        "front": [0, 1],
        "original": {"accuracy": {"name": "accuracy", "value": 0.92, "unit": "1", "source": "measured"}},
    }
    (tmp_path / "search.json").write_text(json.dumps(told))
    return tmp_path


def test_the_verdict_names_the_best_and_what_it_was(folder):
    view = read(Run(folder))
    assert view.sentence.endswith("the best of 5 trials has accuracy 0.9000 (was 0.9200), bytes 900\u202fB")
    assert [each.id for each in view.front] == ["point0", "point1"]


def test_what_mattered_is_the_correlation_ratio(folder):
    importances = dict(read(Run(folder)).importances)
    # accuracies by answer: int2 {.9, .6}, int3 {.8}, int4 {.7}; around the mean of .75 that is .005 of .05
    assert importances["quantize.weights[body.0]"][0] == pytest.approx(0.1)
    assert importances["quantize.weights[head]"] == [0.0, 0.0]


def test_the_spread_over_seeds(folder):
    assert read(Run(folder)).figures["seeds"] is None
    for seed, values in {"1": (0.5, 0.95), "2": (0.7, 0.6, 0.8, 0.9, 0.96)}.items():
        (folder / "seeds" / seed).mkdir(parents=True)
        text = "\n".join(trial(number, value, 600.0) for number, value in enumerate(values))
        (folder / "seeds" / seed / "trials.jsonl").write_text(text)
    figures = read(Run(folder)).figures
    assert figures["best"] == [0.9] * 5  # of four trials, and one that failed
    assert figures["seeds"] == [
        (0.5, 0.7, 0.9),
        (0.7, 0.9, 0.95),
        *[(0.8, 0.9, 0.95), (0.9, 0.9, 0.95), (0.9, 0.95, 0.96)],
    ]
    assert "what 3 seeds reached" in write(folder).read_text()


def test_the_page_holds_it_all_and_runs_nothing_of_the_user_s(folder):
    page = write(folder).read_text()
    assert "front/point0.toml" in page
    assert "<script>alert(1)" not in page
    assert "bytes &lt; 1 kB" in page
    assert "ValueError" in page


def test_the_ten_lines(folder):
    from rich.console import Console

    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(summary(Run(folder)))
    text = console.export_text()
    assert "point0" in text
    assert len(text.splitlines()) <= 10
    console.file.close()


def test_a_folder_of_neither_kind(tmp_path):
    with pytest.raises(UserError, match="not a run folder"):
        write(tmp_path)
