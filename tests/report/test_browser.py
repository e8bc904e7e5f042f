"""The page in a real browser: what it shows, what it asks for, what a click does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from planish.record import Measurement
from planish.report import write
from tests.report import sample
from tests.report.browsing import open_page

pytestmark = pytest.mark.long  # each opens a browser
LAYER = "encoder.layer.3.output.dense"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    run = sample.write(tmp_path_factory.mktemp("run"))
    write(run.path)
    return run


def _asked(browser: Any) -> list[str]:
    """What the pages of users asked for since the log was read last; Chromium's own new tab is none."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [each["params"] for each in messages if each["method"] == "Network.requestWillBeSent"]
    return [each["request"]["url"] for each in asked if not each["documentURL"].startswith("chrome:")]


def _selected(browser: Any) -> dict[str, Any]:
    """Which layers each part of the page shows as selected."""
    return browser.execute_script("""
        const tree = document.getElementById("tree").data[0];
        const dots = document.getElementById("roofline").data[0];
        const bands = document.getElementById("maps").layout.shapes.filter((s) => s.type === "rect");
        const columns = D.layers.filter((l) => l.v["weight_bits chosen"] || l.v["sensitivity int8"]);
        return {
          tree: tree.customdata.filter((_, i) => tree.marker.line.width[i] > 1),
          roofline: dots.customdata.filter((_, i) => dots.marker.line.width[i] > 1),
          maps: bands.map((s) => columns[s.x0 + 0.5].id),
          table: [...document.querySelectorAll("tr.selected")].map((row) => row.dataset.layer),
        };""")


def test_nothing_is_complained_of_and_nothing_is_fetched(browser: Any, run: Any) -> None:
    for log in ("browser", "performance"):
        browser.get_log(log)  # forget earlier pages
    open_page(browser, run.path)
    assert browser.get_log("browser") == []
    assert [url for url in _asked(browser) if not url.startswith(("file:", "data:"))] == []


def test_a_fetch_would_be_refused_and_said(browser: Any, run: Any) -> None:
    open_page(browser, run.path)
    browser.get_log("browser")
    browser.execute_async_script("fetch('http://localhost:49151/x').catch(() => 0).then(arguments[0])")
    said = [entry["message"] for entry in browser.get_log("browser")]
    assert any("http://localhost:49151/x" in each and "Content Security Policy" in each for each in said)


def test_the_figures_draw_what_was_measured(browser: Any, run: Any) -> None:
    open_page(browser, run.path)
    rows: list[Measurement] = run.measurements()
    bars = browser.execute_script("const b = document.getElementById('engines').data[0]; return [b.customdata, b.x]")
    latency = {m.subject: m.value for m in rows if m.name == "latency"}
    assert dict(zip(*bars, strict=True)) == latency

    leaves = browser.execute_script(
        "const t = document.getElementById('tree').data[0]; return [t.customdata, t.values]"
    )
    drawn = dict(zip(*leaves, strict=True))
    times = [m for m in rows if m.name == "node_time" and m.subject == "original"]
    assert {
        f"{m.where}:{m.details['node']}" if f"{m.where}:{m.details['node']}" in drawn else m.where for m in times
    } <= set(drawn)
    assert drawn[""] == pytest.approx(sum(m.value for m in times))
    assert drawn[LAYER] == next(m.value for m in times if m.where == LAYER)

    dots = browser.execute_script(
        "const d = document.getElementById('roofline').data[0]; return [d.customdata, d.x, d.y]"
    )
    for name, intensity, rate in zip(*dots, strict=True):
        of = {m.name: m.value for m in rows if m.where == name and m.subject in ("", "original")}
        if "node_time" in of and ":" not in name:
            assert intensity == of["intensity"]
            assert rate == pytest.approx(of["flops"] / of["node_time"])

    cells = browser.execute_script("return document.getElementById('maps').data[0].customdata")
    sensitivity = {(m.where, m.details["format"]): m.value for m in rows if m.name == "sensitivity"}
    shown = {(where, fmt): v for fmt, row in zip(sample.FORMATS, cells, strict=True) for where, v in row}
    assert shown == sensitivity


def test_a_layer_selected_anywhere_is_selected_everywhere(browser: Any, run: Any) -> None:
    open_page(browser, run.path)
    for click in (
        "document.getElementById('roofline').emit('plotly_click', {points: [{customdata: id}]})",
        "document.getElementById('maps').emit('plotly_click', {points: [{customdata: [id, 1]}]})",
        "document.getElementById('tree').emit('plotly_treemapclick', {points: [{customdata: id}], nextLevel: id})",
        "document.querySelector(`tr[data-layer='${id}']`).click()",
    ):
        browser.execute_script(f"const id = '{LAYER}'; {click}")
        assert _selected(browser) == {part: [LAYER] for part in ("tree", "roofline", "maps", "table")}
        assert LAYER in browser.find_element("id", "selected").text
        browser.find_element("id", "clear").click()
        assert not any(_selected(browser).values())


def test_a_real_click_on_the_tree_selects_a_layer(browser: Any, run: Any) -> None:
    from selenium.webdriver import ActionChains

    open_page(browser, run.path)
    slices = browser.find_elements("css selector", "#tree g.slice.cursor-pointer, #tree g.slice")
    leaf = next(s for s in slices if s.text.startswith("dense"))
    ActionChains(browser).move_to_element(leaf).click().perform()
    chosen = _selected(browser)
    assert chosen["table"] == chosen["roofline"] == chosen["tree"]
    assert chosen["table"][0].endswith("intermediate.dense")


def test_a_module_selects_the_layers_below_it(browser: Any, run: Any) -> None:
    open_page(browser, run.path)
    browser.execute_script("select('encoder.layer.2')")
    assert {name.startswith("encoder.layer.2.") for name in _selected(browser)["table"]} == {True}
    assert len(_selected(browser)["maps"]) == 6


def test_a_module_is_entered_and_left(browser: Any, run: Any) -> None:
    open_page(browser, run.path)
    browser.get_log("browser")
    tree = "document.getElementById('tree')"
    point = "{points: [{customdata: 'encoder.layer.2'}], nextLevel: 'encoder.layer.2'}"
    browser.execute_script(f"{tree}.emit('plotly_treemapclick', {point})")
    assert browser.find_element("id", "trail").text == "MiniLM-L6-v2 / encoder.layer / layer 2"
    assert browser.execute_script(f"return {tree}.data[0].level") == "encoder.layer.2"
    browser.find_element("css selector", "#trail button").click()
    assert not browser.find_element("id", "trail").is_displayed()
    assert not any(_selected(browser).values())
    assert browser.get_log("browser") == []


def test_the_tree_is_colored_by_precision_on_request(browser: Any, run: Any) -> None:
    open_page(browser, run.path)
    before = browser.execute_script("return document.getElementById('tree').data[0].marker.colors")
    browser.find_element("css selector", "[data-state=color] button[value=precision]").click()
    assert browser.execute_script("return document.getElementById('tree').data[0].marker.colors") != before
    assert "8 bit weights" in browser.find_element("id", "tree-key").text


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.long)])
@pytest.mark.parametrize("width", [380, 800])
def test_a_narrow_screen_never_scrolls_sideways(browser: Any, run: Any, width: int, scheme: str) -> None:
    open_page(browser, run.path, width, scheme)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_page_and_figures_follow_the_scheme(browser: Any, run: Any) -> None:
    seen = []
    for scheme in ("light", "dark"):
        open_page(browser, run.path, scheme=scheme)
        paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        ink = browser.execute_script("return document.getElementById('engines').layout.annotations[1].font.color")
        seen.append((paper, ink))
    assert seen[0][0] != seen[1][0]
    assert seen[0][1] != seen[1][1]


def test_every_figure_has_alternative_text(browser: Any, run: Any) -> None:
    open_page(browser, run.path)
    labels = [plot.get_attribute("aria-label") for plot in browser.find_elements("css selector", ".plot")]
    assert len(labels) == 4
    assert all(len(label) > 60 for label in labels)


def test_hostile_names_run_nothing(browser: Any, tmp_path: Path) -> None:
    attack = "</script><script>window.owned=1</script><img src=x onerror=window.owned=1>"
    run = sample.write(tmp_path, name=attack)
    details = {"node": "n", "op": attack, "format": attack}
    run.add(Measurement("node_time", 1e-2, "s", "measured", subject="original", where=f"a.{attack}", details=details))
    run.add(Measurement("sensitivity", 10, "dB", "measured", where=f"a.{attack}", details=details))
    run.add(Measurement("latency", 1e-2, "s", "measured", subject=attack))
    write(tmp_path)
    open_page(browser, tmp_path)
    browser.execute_script("select(D.layers.find((l) => l.path.startsWith('a.')).id)")
    assert browser.execute_script("return window.owned") is None
    assert "<script>" in browser.find_element("id", "selected").text


@pytest.mark.parametrize("stop", [40, *(pytest.param(stop, marks=pytest.mark.long) for stop in (0, 6, 700))])
def test_an_interrupted_run_draws_without_complaint(browser: Any, tmp_path: Path, stop: int) -> None:
    sample.write(tmp_path, stop_after=stop)
    write(tmp_path)
    browser.get_log("browser")
    open_page(browser, tmp_path, 380)
    assert browser.get_log("browser") == []
    assert "not complete" in browser.find_element("css selector", ".incomplete").text
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 380
