from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest

import planish.report.page
import planish.report.view
from planish.errors import MissingExtra, UserError
from planish.record import Measurement, Run
from planish.report import write
from tests.report import sample
from tests.support import require

ATTACK = "</script><script>alert('&')</script><img src=x onerror=alert(1)>"


@pytest.fixture(autouse=True)
def _libraries() -> None:
    require("jinja2")
    require("plotly")


def test_the_page_is_one_file_that_asks_for_nothing(tmp_path: Path) -> None:
    sample.write(tmp_path)
    page = write(tmp_path)
    text = page.read_text(encoding="utf-8")
    assert page == tmp_path / "report.html"
    assert page.stat().st_size < 5e6
    assert "default-src 'none'" in text
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", text)


def test_the_same_folder_gives_the_same_page(tmp_path: Path) -> None:
    sample.write(tmp_path)
    assert write(tmp_path).read_bytes() == write(tmp_path).read_bytes()


def test_every_number_on_the_page_is_a_row_of_the_run(tmp_path: Path) -> None:
    run = sample.write(tmp_path)
    rows = run.measurements()
    marked = (
        r'data-measurement="([^"]*)" data-subject="([^"]*)" data-where="([^"]*)" data-value="([^"]*)" data-row="(\d+)"'
    )
    found = re.findall(marked, write(tmp_path).read_text(encoding="utf-8"))
    assert len(found) > 700
    for name, subject, where, value, index in found:
        row = rows[int(index)]
        assert (html.unescape(name), html.unescape(subject), html.unescape(where)) == (row.name, row.subject, row.where)
        assert float(value) == row.value


@pytest.mark.parametrize("stop", [0, 1, 5, 30, 600, 850])
def test_an_interrupted_run_gives_a_page_that_says_so(tmp_path: Path, stop: int) -> None:
    sample.write(tmp_path, stop_after=stop)
    text = write(tmp_path).read_text(encoding="utf-8")
    assert "This run is not complete." in text
    assert "its quality on real data" in text
    assert "not measured" in text


def test_a_torn_last_line_and_a_nan_are_survived(tmp_path: Path) -> None:
    run = sample.write(tmp_path)
    run.add(Measurement("node_time", float("nan"), "s", "measured", where="a.b", details={"node": "n", "op": "add"}))
    with (tmp_path / "measurements.jsonl").open("a") as stream:
        stream.write('{"name": "lat')
    json.loads(_data(write(tmp_path)), parse_constant=pytest.fail)


def test_names_from_the_model_stay_text(tmp_path: Path) -> None:
    run = sample.write(tmp_path, name=ATTACK)
    details = {"node": ATTACK, "op": ATTACK, "type": ATTACK, "format": ATTACK}
    run.add(Measurement("node_time", 1e-3, "s", "measured", subject="original", where=f"a.{ATTACK}", details=details))
    run.add(Measurement("sensitivity", 10, "dB", "measured", where=f"a.{ATTACK}", details=details))
    run.add(Measurement("refused", 1, "1", "exact", subject=ATTACK, details={"engine": ATTACK, "reason": ATTACK}))
    run.add(Measurement("latency", 1, "s", "measured", subject=ATTACK, details={"role": ATTACK}))
    for file in ("recipe.toml", "graph.txt"):
        run.write(file, ATTACK)
    run.write("environment.json", json.dumps({"cpu": ATTACK, "command": ATTACK, "versions": {ATTACK: ATTACK}}))
    page = write(tmp_path)
    text = page.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "<img" not in text.replace(_plotly(text), "")
    assert json.loads(_data(page))["model"] == ATTACK


def test_a_folder_that_is_no_run_is_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run folder"):
        write(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()


def test_a_missing_library_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample.write(tmp_path)
    monkeypatch.setattr(planish.report.page.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=re.escape("planish[report]")):
        write(tmp_path)


def test_a_large_model_stays_below_the_budget(tmp_path: Path) -> None:
    sample.write(tmp_path, layers=60)
    assert write(tmp_path).stat().st_size < 5e6


def test_a_broken_environment_is_missing_not_fatal(tmp_path: Path) -> None:
    run = sample.write(tmp_path)
    run.write("environment.json", "{")
    run.write("recipe.toml", "= broken")
    assert "the machine and the versions" in write(tmp_path).read_text(encoding="utf-8")


def test_a_run_that_only_analyzes_misses_no_verdict(tmp_path: Path) -> None:
    run = sample.write(tmp_path, stop_after=30)
    run.write("environment.json", json.dumps({"command": "planish analyze minilm"}))
    text = write(tmp_path).read_text(encoding="utf-8")
    assert "not complete" not in text
    assert "not measured</p>" not in text


def test_a_built_model_lacks_no_layers(tmp_path: Path) -> None:
    run = sample.write(tmp_path, stop_after=2)
    run.write("environment.json", json.dumps({"command": "planish build mlp"}))
    text = write(tmp_path).read_text(encoding="utf-8")
    assert "the latency of the artifact" in text
    assert "of each layer" not in text.partition('class="incomplete"')[2].partition("</p>")[0]


def test_first_answers_fold_away(tmp_path: Path) -> None:
    sample.write(tmp_path)
    fold = write(tmp_path).read_text(encoding="utf-8").partition("The first answer")[2].partition("</details>")[0]
    assert fold.count("<tr") == 7
    assert fold.index("openvino int8") < fold.index("eager fp32")


def test_a_shape_is_said_in_words() -> None:
    shapes = planish.report.view._shapes
    assert shapes([1, 3, 224, 224]) == "input 1×3×224×224"
    assert shapes([[1, 128], [1, 128]]) == "2 inputs 1×128"
    assert shapes([[1, 128], []]) == "inputs 1×128, scalar"


def test_an_empty_run_of_a_new_folder_has_a_page(tmp_path: Path) -> None:
    Run(tmp_path).add([])
    assert write(tmp_path).is_file()


def _data(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    return text.partition('<script type="application/json" id="data">')[2].partition("</script>")[0]


def _plotly(text: str) -> str:
    return text.partition('id="plotly-gzip">')[2].partition("</script>")[0]
