"""Which kind a folder is of, and what every kind must do."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from planish.record import Measurement, Run
from planish.report import compression, federation, plan, search, step, training, write
from planish.report.kinds import KINDS, kind_of
from tests.report import runs, sample
from tests.report.test_terminal import printed
from tests.support import require

MARKED = r'data-measurement="([^"]*)" data-subject="([^"]*)" data-where="([^"]*)" data-value="([^"]*)" data-row="(\d+)"'


def test_a_folder_is_of_the_kind_that_left_its_rows(tmp_path: Path) -> None:
    assert kind_of(sample.write(tmp_path / "a")) is compression.KIND
    assert kind_of(runs.training(tmp_path / "b")) is training.KIND
    assert kind_of(runs.federation(tmp_path / "c")) is federation.KIND
    assert kind_of(runs.step(tmp_path / "d")) is step.KIND
    assert kind_of(Run(tmp_path / "e")) is compression.KIND
    planned = Run(tmp_path / "f")
    planned.add(Measurement("step_time", 1.0, "s", "modeled"), "plan")
    assert kind_of(planned) is plan.KIND
    planned.write(search.TRIALS, "")
    assert kind_of(planned) is search.KIND
    assert len(KINDS) == 6


def test_an_analysis_with_a_training_step_shows_both(tmp_path: Path) -> None:
    sample.write(tmp_path, stop_after=30)
    run = runs.step(tmp_path, "minilm")
    assert kind_of(run) is compression.KIND
    assert "a training step of 8 rows peaks at" in printed(run)
    require("plotly")
    text = write(tmp_path).read_text()
    for heading in (
        "Where the time and the bits are",
        "What a training step keeps",
        "The peak, and what would lower it",
    ):
        assert heading in text
    assert "not complete" not in text


def test_a_compression_beside_a_training_step_keeps_its_verdict(tmp_path: Path) -> None:
    sample.write(tmp_path)
    require("plotly")
    runs.step(tmp_path, "minilm")
    text = write(tmp_path).read_text()
    assert '<div class="change better">' in text
    assert "What a training step keeps" in text


def test_a_training_shows_a_step_below(tmp_path: Path) -> None:
    require("plotly")
    runs.step(tmp_path)
    runs.training(tmp_path)
    text = write(tmp_path).read_text()
    assert text.index("How the loss went") < text.index("What a training step keeps")


@pytest.mark.parametrize("make", [runs.training, runs.federation, runs.step], ids=lambda make: make.__name__)
def test_every_number_is_a_row_and_the_page_is_one_file(tmp_path: Path, make: Callable[[Path], Run]) -> None:
    require("jinja2")
    require("plotly")
    rows = make(tmp_path).measurements()
    text = write(tmp_path).read_text()
    found = re.findall(MARKED, text)
    assert len(found) > 9
    for name, subject, where, value, index in found:
        row = rows[int(index)]
        assert (html.unescape(name), html.unescape(subject), html.unescape(where)) == (row.name, row.subject, row.where)
        assert float(value) == row.value
    assert write(tmp_path).read_text() == text
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", text)


@pytest.mark.parametrize("make", [runs.training, runs.federation, runs.step], ids=lambda make: make.__name__)
def test_the_terminal_says_it_in_ten_lines(tmp_path: Path, make: Callable[[Path], Run]) -> None:
    text = printed(make(tmp_path))
    assert 5 <= len(text.splitlines()) <= 12
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "missing" not in text
    assert text.startswith("mlp: ")


@pytest.mark.parametrize("make", [runs.training, runs.federation, runs.step], ids=lambda make: make.__name__)
def test_a_broken_environment_is_survived(tmp_path: Path, make: Callable[[Path], Run]) -> None:
    require("plotly")
    run = make(tmp_path)
    run.write("environment.json", "{")
    assert write(tmp_path).is_file()
    assert printed(run)
