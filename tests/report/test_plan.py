"""The page of a folder with a plan."""

from __future__ import annotations

import re

import pytest

from planish.flow import planning
from planish.flow.source import Source
from planish.record import Measurement, Run
from planish.report import write
from planish.report.plan import fits, read
from planish.training.planning import Cluster
from tests.report.test_terminal import printed
from tests.support import require
from tests.training.planning.models import small, toy


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    made = Run(tmp_path_factory.mktemp("plan"))
    planning.make(made, Source("small", small(4), None, None), Cluster.of(toy(), mesh=(2, 1)), batch=8)
    return made


def test_the_folder_is_about_a_plan(run, tmp_path) -> None:
    assert fits(run)
    other = Run(tmp_path)
    assert not fits(other)
    other.add(Measurement("latency", 1.0, "s", "measured"))
    assert not fits(other)


def test_boxes_stay_within_the_figure(run) -> None:
    view = read(run)
    assert len(view.devices) == 1 or view.timeline
    for box in (*view.memory, *view.timeline):
        assert box.x >= 0
        assert box.x + box.width <= 960.01
    assert sum(share for _, _, share in view.parts) == pytest.approx(1)


def test_the_page_says_the_plan_and_why(run) -> None:
    require("jinja2")
    require("plotly")
    text = write(run.path).read_text()
    view = read(run)
    assert view.sentence in text
    assert all(row.details["plan"] in text for row, _ in view.candidates)
    assert "modeled" in text
    assert not re.search(r"(src|href)=\"https?:", text)


def test_the_terminal_says_it_in_ten_lines(run) -> None:
    text = printed(run)
    assert "all modeled: nothing was run" in text
    assert "missing" not in text
    assert 6 <= len(text.splitlines()) <= 12


def test_a_part_without_words_is_called_by_its_name(tmp_path) -> None:
    old = Run(tmp_path)
    old.add(Measurement("step_part", 2.0, "s", "modeled", subject="compute"), "plan")
    assert read(old).parts == [("compute", 2.0, 1.0)]
