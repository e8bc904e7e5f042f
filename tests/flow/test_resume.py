"""A job that is killed goes on after the last stage it finished, and ends where an undisturbed one ends."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import planish
from planish import flow
from planish.compress import Quantize
from planish.errors import UserError
from planish.flow.stages import Stages
from planish.record import Measurement, Run
from tests.support import require

pytestmark = pytest.mark.long  # each runs a job several times
MODEL = """
import torch, planish
def make():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    rows = [((torch.randn(4, 8),), {}) for _ in range(3)]
    return planish.Task(net, rows[0][0], calibration=rows, evaluation=rows, metric="sqnr", name="tiny",
                        dynamic={"input": {0: "batch"}})
"""
DRIVER = """
import os, signal, sys
import planish
from planish import flow
from planish.flow.stages import Stages
from planish.record import Run
model, folder, after = sys.argv[1:]
write = Stages._write
def kill(self):
    write(self)
    if after in self._known:
        os.kill(os.getpid(), signal.SIGKILL)
Stages._write = kill
target = planish.Cpu(engine="onnxruntime", batch=1, seconds=0.05)
flow.compress(Run(folder), flow.resolve(model), None, target, lambda *_: None)
"""
ORDER = [
    *("model", "capture", "analysis", "quality of the original", "sensitivity", "step 1: smooth", "step 2: quantize"),
    *("recipe", "build", "quality", "start"),
]


def quiet(_done: int, _total: int, _what: str) -> None:
    """Tell nobody."""


def target(**options: object) -> planish.Cpu:
    return planish.Cpu(engine="onnxruntime", batch=1, **{"seconds": 0.05, **options})  # type: ignore[arg-type]


@pytest.fixture(scope="module", autouse=True)
def no_processes() -> object:
    """Fresh processes are `planish.bench`'s to test; here each stage is to take no time."""
    require("onnxruntime")

    def first(models: dict[str, Path], *_: object, **__: object):
        for label in models:
            yield (Measurement("cold_start", 1.0, "s", "measured", subject=label),)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("planish.bench.start", first)
        yield


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("model") / "m.py"
    file.write_text(MODEL)
    return file


@pytest.fixture(scope="module")
def source(file: Path) -> flow.Source:
    return flow.resolve(f"{file}:make")


@pytest.fixture(scope="module")
def whole(source: flow.Source, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("whole"))
    assert flow.compress(run, source, None, target(), quiet).reused == []
    return run


def same(one: Run, other: Run) -> None:
    """Equal up to what a clock says."""

    def told(run: Run) -> list[tuple[object, ...]]:
        rows = run.measurements()
        timed = {"latency", "node_time", "roofline_time", "peak", "op_overhead"}
        return sorted(
            (
                m.stage,
                m.name,
                m.where,
                m.subject.removesuffix(" exact"),  # both ways of this engine are kept or not by a few microseconds
                m.details.get("node", ""),
                None if m.name in timed else m.value,
            )
            for m in rows
            if m.name not in ("speedup", "executed_precision")
        )

    assert [row[:5] for row in told(one)] == [row[:5] for row in told(other)]
    assert [row[5] for row in told(one)] == pytest.approx([row[5] for row in told(other)], nan_ok=True)
    for name in ("recipe.toml", "graph.txt", "artifact/model.onnx"):
        assert (one.path / name).read_bytes() == (other.path / name).read_bytes(), name


def test_the_stages_are_those(whole: Run) -> None:
    assert list(json.loads((whole.path / "stages.json").read_text())) == ORDER


class Killed(BaseException):
    """Nothing but `finally` runs after it."""


@pytest.mark.parametrize("recorded", [False, True], ids=["before", "after"])
def test_killed_at_every_boundary(
    recorded: bool, source: flow.Source, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One folder, killed at one stage after the other: just before it is recorded as finished, or just after."""
    run, write = Run(tmp_path), Stages._write
    for place, stage in enumerate(ORDER):

        def kill(self: Stages, stage: str = stage) -> None:
            if recorded:
                write(self)
            if stage in self._known:
                raise Killed
            write(self)

        with monkeypatch.context() as patch:
            patch.setattr(Stages, "_write", kill)
            with pytest.raises(Killed):
                flow.compress(run, source, None, target(), quiet)
        done = ORDER[: place + recorded]
        assert list(json.loads(run.read("stages.json") or "{}")) == done
        assert run.measurements()
    job = flow.compress(run, source, None, target(), quiet)
    assert set(job.stages.reused) == {
        name for name in done if not name.startswith("step ")
    }  # the recipe covers its steps
    same(run, whole)


def test_killed_by_the_system(file: Path, source: flow.Source, whole: Run, tmp_path: Path) -> None:
    command = [sys.executable, "-c", DRIVER, f"{file}:make", str(tmp_path), "step 1: smooth"]
    killed = subprocess.run(command, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    job = flow.compress(Run(tmp_path), source, None, target(), quiet)
    assert job.reused == ["analysis", "quality of the original", "sensitivity", "step 1: smooth"]
    same(Run(tmp_path), whole)


def _again(run: Run, source: flow.Source, recipe: planish.Recipe | None = None, **options: object) -> set[str]:
    return set(flow.compress(run, source, recipe, target(**options), quiet).reused)


@pytest.fixture
def run(source: flow.Source, whole: Run, tmp_path: Path) -> Run:
    """A finished run to change."""
    shutil.copytree(whole.path, tmp_path / "run")
    return Run(tmp_path / "run")


EVERYTHING = {"analysis", "sensitivity", "recipe", "build", "quality of the original", "quality", "start"}


def test_the_same_command_does_nothing_again(run: Run, source: flow.Source) -> None:
    before = (run.path / "measurements.jsonl").read_bytes()
    assert _again(run, source) == EVERYTHING
    assert (run.path / "measurements.jsonl").read_bytes() == before


def test_another_number_of_threads_builds_again(run: Run, source: flow.Source) -> None:
    kept = _again(run, source, threads=2)
    assert EVERYTHING - kept == {"build", "quality", "start"}
    assert {row.details["threads"] for row in run.measurements() if row.name == "latency"} == {2}


def test_another_recipe_leaves_nothing_of_the_first(run: Run, source: flow.Source) -> None:
    recipe = planish.Recipe(Quantize(weights="int4@g8*float16"))
    assert EVERYTHING - _again(run, source, recipe) == {"recipe", "build", "quality", "start"}
    rows = run.measurements()
    assert not [row.subject for row in rows if row.name == "latency" and "int8" in row.subject]
    assert sorted(file.name for file in (run.path / "graphs").iterdir()) == ["1-quantize.planish", "captured.planish"]
    assert len([row for row in rows if row.name == "sqnr"]) == 2


def test_a_changed_last_step_keeps_the_first(run: Run, source: flow.Source) -> None:
    first, last = planish.Recipe.load(run.path / "recipe.toml").steps
    recipe = planish.Recipe(first, dataclasses.replace(last, correct_bias=False), name="int8")
    assert "step 1: smooth" in _again(run, source, recipe)


def test_other_data_changes_what_it_was_used_for(run: Run, source: flow.Source) -> None:
    assert source.task is not None
    other = dataclasses.replace(source.task, calibration=[((torch.randn(4, 8),), {})])
    assert EVERYTHING - _again(run, dataclasses.replace(source, task=other)) >= {"sensitivity", "recipe", "build"}


def test_other_weights_are_another_model(run: Run, source: flow.Source, file: Path) -> None:
    changed = file.with_name("other.py")
    changed.write_text(MODEL.replace("manual_seed(0)", "manual_seed(1)"))
    assert _again(run, flow.resolve(f"{changed}:make")) == set()
    assert len([row for row in run.measurements() if row.name == "model"]) == 1


@pytest.mark.parametrize(
    "lost", ["artifact/model.onnx", "graphs/captured.planish", "stages.json", "measurements.jsonl"]
)
def test_what_was_deleted_is_made_again(lost: str, run: Run, source: flow.Source, whole: Run) -> None:
    (run.path / lost).unlink()
    _again(run, source)
    same(run, whole)


@pytest.mark.parametrize(
    "damage", ["", "[]", "{", '{"build": 3, "model": {"key": 1}}', '{"step 9": {"files": ["/etc"]}}']
)
def test_a_damaged_record_is_no_record(damage: str, run: Run, source: flow.Source, whole: Run) -> None:
    (run.path / "stages.json").write_text(damage)
    _again(run, source)
    same(run, whole)


def test_a_graph_that_no_file_holds_is_made_again(
    source: flow.Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **_options: object) -> None:
        raise UserError("a graph with an argument of type Thing cannot be saved")

    monkeypatch.setattr(planish.Graph, "save", refuse)
    job = flow.compress(Run(tmp_path), source, None, target(), quiet)
    assert len(job.notes) == 3
    assert "type Thing" in job.notes[0]
    assert _again(Run(tmp_path), source) == EVERYTHING


def test_building_alone_forgets_the_recipe(run: Run, source: flow.Source) -> None:
    flow.build(run, source, target(), quiet)
    assert not (run.path / "recipe.toml").exists()
    assert not [row for row in run.measurements() if row.name == "weight_bits"]
    roles = sorted(row.details["role"] for row in run.measurements() if row.name == "latency")
    assert roles == ["chosen", "eager"]


def test_bench_races_again_without_the_model_s_code(run: Run, source: flow.Source) -> None:
    before = {(row.name, row.subject, row.details.get("role")) for row in run.measurements()}
    flow.bench(run.path, quiet, seconds=0.1)
    rows = run.measurements()
    assert {(row.name, row.subject, row.details.get("role")) for row in rows} >= before
    assert len([row for row in rows if row.details.get("role") == "chosen"]) == 1
    assert _again(run, source) == EVERYTHING
    flow.bench(run.path, quiet, batch=3, seconds=0.1)
    assert {row.details.get("batch", 3) for row in run.measurements() if row.name == "latency"} == {3}
    assert EVERYTHING - _again(run, source) == {"build", "quality", "start"}


def test_bench_needs_an_artifact_and_a_graph(run: Run) -> None:
    (run.path / "graphs/captured.planish").unlink()
    with pytest.raises(UserError, match="no captured graph"):
        flow.bench(run.path, quiet)
