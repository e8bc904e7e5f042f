from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from planish.compress import Quantize
from planish.errors import DataError, EngineError, OptionError, UnknownName, UntrustedFile, UserError
from planish.frontends import capture
from planish.targets.cpu import Cpu, load
from planish.targets.cpu import engine as targets
from tests.support import require
from tests.targets.contract import Perceptron, graph_of

ENGINES = ["openvino", "onnxruntime"]


@pytest.fixture(params=ENGINES)
def engine(request):
    require(request.param)
    require("onnx")
    return request.param


def build(engine=None, graph=None, **options):
    return Cpu(engine=engine, seconds=0.02, **options).build(graph or graph_of("perceptron"))


class Structured(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Perceptron()

    def forward(self, pair, *, scale):
        return {"sum": self.inner(pair[0] + pair[1]) * scale, "parts": [pair[0], None]}


def test_it_has_the_signature_and_the_structure_of_the_model(engine):
    pair, scale = (torch.randn(2, 24), torch.randn(2, 24)), torch.tensor(2.0)
    graph = capture(Structured().eval(), ((pair,), {"scale": scale}), training=False)
    result, wanted = build(engine, graph)(pair, scale=scale), graph(pair, scale=scale)
    assert result.keys() == wanted.keys()
    assert result["parts"][1] is None
    torch.testing.assert_close(result["sum"], wanted["sum"], atol=1e-5, rtol=1e-5)


def test_a_saved_artifact_loads_and_computes_the_same(engine, tmp_path):
    artifact = build(engine)
    assert artifact.save(tmp_path / "out") == artifact.path
    x = torch.randn(9, 24)
    torch.testing.assert_close(load(tmp_path / "out")(x), artifact(x))


def test_the_readme_runs_without_planish(engine, tmp_path):
    build(engine).save(tmp_path)
    program = re.search(r"```python\n(.*?)```", (tmp_path / "README.md").read_text(), re.DOTALL)[1]
    assert len(program.strip().splitlines()) <= 12
    hidden = f"import sys; sys.modules['planish'] = None; sys.modules['torch'] = None\n{program}"
    done = subprocess.run([sys.executable, "-c", hidden], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "output (2, 6)"


def test_rows_follow_the_run_folder():
    for name in ENGINES:
        require(name)
    graph = graph_of("perceptron")
    small = Quantize("int7", "uint8")(graph, [(graph.example[0], {})])
    artifact = Cpu(seconds=0.05).build(small, original=graph, data=[(graph.example[0], {})])
    roles = [row.details["role"] for row in artifact.measurements if row.name == "latency"]
    assert all(roles.count(role) == 1 for role in ("eager", "baseline", "chosen"))
    (size,) = [row for row in artifact.measurements if row.name == "size"]
    assert (size.subject, size.value) == ("chosen", artifact.nbytes)
    assert sum(row.value for row in artifact.measurements if row.name == "executed_precision") == pytest.approx(1)


def test_a_changed_graph_in_float32_and_its_baseline_are_two_programs(engine):
    artifact = Cpu(engine, seconds=0.02).build(graph_of("perceptron"), original=graph_of("perceptron"))
    latencies = {row.subject: row.details["role"] for row in artifact.measurements if row.name == "latency"}
    fp32 = f"{engine} fp32"
    assert latencies == {fp32: "chosen", f"{fp32} unchanged": "baseline", "eager fp32": "eager"}


def test_batch_and_fixed_sizes(engine):
    artifact = build(engine, batch=3, dynamic=False)
    assert artifact.options.fixed == {"batch": 3}
    assert artifact(torch.randn(3, 24)).shape == (3, 6)


def test_fixed_sizes_need_not_be_those_of_the_data(engine):
    names = {"ids": {0: "batch", 1: "length"}}
    graph = capture(Words().eval(), (torch.zeros(2, 7, dtype=torch.long),), dynamic=names, training=False)
    data = [((torch.zeros(5, length, dtype=torch.long),), {}) for length in (3, 9)]
    artifact = Cpu(engine, seconds=0.02, dynamic=False).build(graph, data=data)
    assert artifact.options.fixed == {"batch": 2, "length": 7}


def test_measure_times_the_example(engine):
    rows = build(engine).measure(seconds=0.02)
    assert {row.name for row in rows} == {"latency", "executed_precision", "size"}


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(50, 8), nn.Linear(8, 3)

    def forward(self, ids):
        return self.head(self.table(ids)).mean(1)


def test_texts_are_timed_at_their_own_lengths():
    names = {"ids": {0: "batch", 1: "length"}}
    graph = capture(Words().eval(), (torch.zeros(2, 7, dtype=torch.long),), dynamic=names, training=False)
    data = [((torch.zeros(5, length, dtype=torch.long),), {}) for length in range(3, 23)]  # sorted, 100 rows
    artifact = Cpu("onnxruntime", batch=1, seconds=0.02, timed_on="data").build(graph, data=data, original=graph)
    lengths = [call[0][0].shape for call in artifact.examples]
    assert len(lengths) == 32
    assert {rows for rows, _ in lengths} == {1}
    assert {length for _, length in lengths} == set(range(3, 23))
    assert {r.details.get("calls") for r in artifact.measurements if r.details.get("role") == "chosen"} == {32}
    for none in (None, [], iter(())):
        with pytest.raises(DataError, match=r"no data|are empty"):
            Cpu("onnxruntime", timed_on="data").build(graph, data=none)
    assert len(Cpu("onnxruntime", batch=1, seconds=0.02).build(graph, data=data).examples) == 1


def test_an_engine_that_is_off_is_refused_with_the_reason(engine):
    with pytest.raises(EngineError, match=r"differ from the graph's by .* tolerance 1e-12"):
        build(engine, tolerance=1e-12)


def test_bfloat16_is_tried_beside_float32(tmp_path):
    require("openvino")
    from planish.targets.cpu.openvino import OpenVino

    if not OpenVino.has_bfloat16:
        pytest.skip("this processor has no products of bfloat16")
    graph = graph_of("block")
    artifact = Cpu("openvino", precision="bfloat16", seconds=0.02).build(graph, original=graph_of("block"))
    subjects = {row.subject for row in artifact.measurements if row.name == "latency"}
    assert subjects == {"openvino fp32", "openvino bf16", "openvino fp32 unchanged", "eager fp32"}
    half = Cpu("openvino", seconds=0.02).build(graph)
    compiled = OpenVino().compile(graph, replace(half.options, bfloat16=True))
    ran = compiled.executed_precisions(half.signature.flatten(*graph.example))
    assert ran.get("bf16", 0) > 0
    half = replace(half, compiled=compiled, options=replace(half.options, bfloat16=True), precision="bf16")
    half.save(tmp_path)
    torch.testing.assert_close(load(tmp_path)(*graph.example[0]), half(*graph.example[0]))


def test_bfloat16_is_refused_where_there_is_none(engine, monkeypatch):
    monkeypatch.setattr(type(targets.ENGINES[engine]()), "has_bfloat16", False)
    with pytest.raises(EngineError, match=f"no product of bfloat16 here in {engine}"):
        build(engine, precision="bfloat16")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"engine": "openvine"}, UnknownName),
        ({"precision": "bf17"}, OptionError),
        ({"threads": 0}, OptionError),
        ({"batch": 0}, OptionError),
        ({"tolerance": 0.0}, OptionError),
        ({"timed_on": "texts"}, OptionError),
        ({"timed_on": "data", "dynamic": False}, OptionError),
    ],
)
def test_bad_options(options, error):
    with pytest.raises(error):
        Cpu(**options)


@pytest.mark.parametrize("call", [(torch.zeros(2, 23),), (torch.zeros(2, 24, dtype=torch.int64),), ()])
def test_wrong_inputs_are_named(call):
    require("onnxruntime")
    with pytest.raises(DataError):
        build("onnxruntime")(*call)


def test_a_full_disk_leaves_the_folder_as_it_was(tmp_path):
    require("onnxruntime")
    artifact = build("onnxruntime")
    blocked = tmp_path / "file"
    blocked.write_text("here")
    with pytest.raises(UserError, match="cannot save"):
        artifact.save(blocked / "out")
    assert blocked.read_text() == "here"


def test_damaged_and_foreign_folders_are_refused(tmp_path):
    require("onnxruntime")
    with pytest.raises(UntrustedFile):
        load(tmp_path / "nothing")
    build("onnxruntime").save(tmp_path)
    note = json.loads((tmp_path / "artifact.json").read_text())
    (tmp_path / "artifact.json").write_text(json.dumps({**note, "files": ["../../secret"]}))
    with pytest.raises(UntrustedFile, match="secret"):
        load(tmp_path)
    (tmp_path / "artifact.json").write_text(json.dumps({**note, "engine": "os.system"}))
    with pytest.raises(UnknownName):
        load(tmp_path)
