"""The pages of trainings in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from planish.record import Run
from planish.report import write
from tests.report import runs, sample
from tests.report.browsing import open_page

pytestmark = pytest.mark.long  # each opens a browser


def both(path: Path) -> Run:
    """An analysis, and a training step below it."""
    sample.write(path, stop_after=30)
    return runs.step(path, "minilm")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1200])
@pytest.mark.parametrize("make", [runs.training, runs.federation, runs.step, both], ids=lambda make: make.__name__)
def test_all_is_drawn_without_complaint_at_any_width(
    browser: Any, tmp_path: Path, make: Callable[[Path], Run], width: int, scheme: str
) -> None:
    make(tmp_path)
    write(tmp_path)
    browser.get_log("browser")
    open_page(browser, tmp_path, width, scheme)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    plots = browser.find_elements("css selector", "#loss, #quality, #bytes, #epsilon, #kept, #passes")
    assert plots
    assert all(plot.find_elements("css selector", "svg.main-svg") for plot in plots)
    assert all(len(plot.get_attribute("aria-label")) > 20 for plot in plots)


def test_what_is_drawn_is_what_was_measured(browser: Any, tmp_path: Path) -> None:
    rows = runs.training(tmp_path).measurements()
    write(tmp_path)
    open_page(browser, tmp_path)
    drawn = browser.execute_script("const l = document.getElementById('loss').data[0]; return [l.customdata, l.y]")
    assert [rows[index].value for index in drawn[0]] == drawn[1]
    assert len(drawn[1]) == 3


def test_savings_are_shown_on_request(browser: Any, tmp_path: Path) -> None:
    runs.step(tmp_path)
    write(tmp_path)
    open_page(browser, tmp_path)
    script = "return document.getElementById('kept').data.map((bars) => bars.x.reduce((a, b) => a + b))"
    assert browser.execute_script(script) == [2100]
    browser.find_element("css selector", "[data-saves] [value=bf16]").click()
    assert browser.execute_script(script) == [1050, 1050]
    browser.find_element("css selector", "[data-saves] [value='']").click()
    assert browser.execute_script(script) == [2100]
