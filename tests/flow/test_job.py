"""The main job on a small trained model: every stage leaves its rows, and running it again continues."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch

import planish
from planish import analysis, flow
from planish.errors import DataError, ModelError, OptionError, UnknownName
from planish.record import Run
from tests.support import require

pytestmark = pytest.mark.xdist_group("job")  # one worker makes the run that all of them read
ROLES = ("chosen", "baseline", "eager")


def quiet(_done: int, _total: int, _what: str) -> None:
    """Tell nobody."""


@pytest.fixture(scope="module")
def source() -> flow.Source:
    require("sklearn")
    return flow.resolve("mlp")


@pytest.fixture(scope="module")
def run(source: flow.Source, tmp_path_factory: pytest.TempPathFactory) -> Run:
    require("onnxruntime")
    run = Run(tmp_path_factory.mktemp("run"))
    target = planish.Cpu(engine="onnxruntime", seconds=0.1)
    flow.compress(run, source, None, target, quiet)
    return run


def test_a_run_holds_all_that_the_page_reads(run: Run) -> None:
    roles = Counter(row.details.get("role") for row in run.measurements() if row.name == "latency")
    assert roles["eager"] == roles["baseline"] == roles["chosen"] == 1
    rows = run.measurements()
    names = {row.name for row in rows}
    wanted = {"model", "size", "latency", "speedup", "macs", "node_time", "roofline_time", "sensitivity", "peak"}
    assert wanted | {"weight_bits", "activation_bits", "accuracy", "sqnr", "executed_precision"} <= names
    for name in ("cold_start", "peak_memory"):
        assert {row.subject for row in rows if row.name == name} == {
            row.subject for row in rows if row.name == "latency" and row.details["role"] in ROLES
        }
    subjects = {row.subject for row in rows if row.name == "accuracy"}
    assert subjects == {"original", "chosen"}
    assert [row.subject for row in rows if row.details.get("headline")] == ["original", "chosen"]
    for name in ("recipe.toml", "environment.json", "graph.txt", "measurements.jsonl", "artifact"):
        assert (run.path / name).exists()
    assert json.loads((run.path / "environment.json").read_text())["seed"] == 0


def test_what_is_compared_with_stays_in_float32(source: flow.Source, tmp_path: Path) -> None:
    require("openvino")
    from planish.targets.cpu.engine import has_bfloat16

    if not has_bfloat16():
        pytest.skip("this processor has no products of bfloat16")
    target = planish.Cpu(engine="openvino", precision="bfloat16", seconds=0.02)
    flow.compress(started := Run(tmp_path), source, None, target, quiet)
    rows = started.measurements()
    assert {
        row.details["precision"] for row in rows if row.details.get("role") == "baseline" and row.name == "latency"
    } == {"fp32"}
    assert not [row for row in rows if row.subject == "baseline"]  # judged by itself where it is not the original


def test_quality_is_kept(run: Run) -> None:
    accuracy = {row.subject: row.value for row in run.measurements() if row.name == "accuracy"}
    assert accuracy["chosen"] >= accuracy["original"] - 0.02


def test_the_recipe_in_the_folder_is_the_one_that_ran(run: Run, source: flow.Source) -> None:
    again = planish.Recipe.load(run.path / "recipe.toml")(source.graph, data=source.task.calibration)
    artifact = planish.load(run.path / "artifact")
    x = source.task.args[0]
    torch.testing.assert_close(artifact(x), again(x), atol=0.1, rtol=0.05)


def test_running_again_keeps_the_analysis(run: Run, source: flow.Source, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("the analysis ran again")

    monkeypatch.setattr(analysis, "profile", refuse)
    flow.compress(run, source, None, planish.Cpu(engine="onnxruntime", seconds=0.1), quiet)


def test_an_interrupted_run_can_be_read(source: flow.Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(analysis, "sensitivity", stop)
    run = Run(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        flow.compress(run, source, None, planish.Cpu(engine="onnxruntime"), quiet)
    assert {"model", "size", "macs", "node_time"} <= {row.name for row in run.measurements()}


def test_a_saved_graph_resolves(source: flow.Source, tmp_path: Path) -> None:
    file = tmp_path / "saved.planish"
    source.graph.save(file)
    again = flow.resolve(str(file))
    assert again.name == "saved"
    x = source.task.args[0]
    torch.testing.assert_close(again.graph(x), source.graph(x))
    with pytest.raises(DataError, match="calibrate"):
        flow.compress(Run(tmp_path), again, None, planish.Cpu(), quiet)
    with pytest.raises(OptionError, match="no model to judge"):
        flow.resolve(str(file), metric="accuracy")


def test_data_and_metric_replace_the_task_s(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch\n"
        "def make():\n    return torch.nn.Linear(3, 2), (torch.randn(2, 3),)\n"
        "def data():\n    return [((torch.randn(4, 3),), {}, torch.zeros(4, dtype=torch.long))]\n"
        "def metric(model, data):\n"
        "    from planish import Measurement\n"
        "    return Measurement('rows', sum(len(x[0][0]) for x in data), '1', 'exact')\n"
    )
    task = flow.resolve(f"{file}:make", data=f"{file}:data", metric=f"{file}:metric").task
    assert [row.value for row in task.judge()] == [4]


def test_verbs() -> None:
    with pytest.raises(ModelError, match="no such file"):
        planish.load("nowhere")
    with pytest.raises(UnknownName, match="cpu"):
        planish.build(None, target="cpuu")
    with pytest.raises(OptionError, match="a target is"):
        planish.build(None, target=3)
