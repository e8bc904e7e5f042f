from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from torch import nn

import planish
from planish import flow
from planish.compress import EarlyExit, Quantize
from planish.errors import EngineError, OptionError, UntrustedFile, UserError
from planish.frontends import capture
from planish.graph import Node
from planish.models.task import Task
from planish.record import Run
from planish.report.numbers import percent
from planish.report.view import read
from planish.targets.cpu import Cpu
from tests.compress.adaptive.test_exits import Net, images, leaving_by_halves
from tests.support import require

require("onnxruntime")
CPU = Cpu(engine="onnxruntime", seconds=0.02)


@pytest.fixture(scope="module")
def whole():
    torch.manual_seed(0)
    return capture(Net().eval(), (torch.randn(2, 1, 9, 9),), dynamic={"x": {0: "batch"}}, training=False)


@pytest.fixture(scope="module")
def graph(whole):
    return leaving_by_halves(EarlyExit(at=("blocks.0", "blocks.2"), loss=0.1)(whole, [((images(400)[0],), {})]))


@pytest.fixture(scope="module")
def cascade(graph):
    return planish.build(graph, CPU)


def counts(artifact):
    return [row.details["rows"] for row in artifact.reached()]


def with_thresholds(graph, limit):
    edit = graph.edit()
    for place in range(2):
        edit.set_tensor(f"exits.{place}.threshold", torch.tensor([limit]))
    return edit.done()


def test_a_batch_is_regrouped_to_what_the_graph_and_single_rows_give(graph):
    cascade, (x, _) = planish.build(graph, CPU), images(60, seed=1)
    assert counts(cascade) == [0, 0, 0]
    batch = cascade(x)
    once = counts(cascade)
    assert 60 == once[0] > once[1] > once[2] > 0
    single = torch.cat([cascade(row[None]) for row in x])
    assert counts(cascade) == [2 * rows for rows in once]
    torch.testing.assert_close(batch, graph(x))
    torch.testing.assert_close(single, graph(x))
    assert [row.value for row in cascade.reached()] == [rows / 60 for rows in once]


@pytest.mark.parametrize(("limit", "reached"), [(0.0, [5, 0, 0]), (2.0, [5, 5, 5])])
def test_all_rows_may_leave_at_once_or_none(graph, limit, reached):
    changed, (x, _) = with_thresholds(graph, limit), images(5)
    cascade = planish.build(changed, CPU)
    torch.testing.assert_close(cascade(x), changed(x))
    assert counts(cascade) == reached


def test_a_cascade_is_kept(cascade, graph, tmp_path):
    x, _ = images(20, seed=4)
    folder = cascade.save(tmp_path / "small")
    again = planish.load(folder)
    assert torch.equal(again(x), cascade(x))
    assert (again.nbytes, again.label) == (cascade.nbytes, "onnxruntime fp32 cascade")
    assert sum(share for share in again.compiled.executed_precisions([x]).values()) == pytest.approx(1)
    assert "stage by stage" in (folder / "README.md").read_text()
    note = folder / "cascade.json"
    for broken in (3, [{"inputs": ["x"]}], [{"inputs": ["x"], "passes": []}] * 9):
        note.write_text(json.dumps(broken))
        with pytest.raises(UntrustedFile):
            planish.load(folder)


def test_a_graph_with_exits_is_cut_after_it_was_saved(graph, tmp_path):
    graph.save(tmp_path / "small.planish")
    assert "cascade" in planish.build(planish.load(tmp_path / "small.planish"), CPU).label


def test_a_graph_without_exits_is_built_whole(whole):
    artifact = planish.build(whole, CPU)
    assert artifact.label == "onnxruntime fp32"
    assert artifact.reached() == []


def test_it_is_timed_on_many_rows_beside_the_whole_model(graph, whole):
    data = [((part,), {}) for part in images(48, seed=3)[0].split(12)]
    for batch, calls in ((1, 32), (8, 4)):
        built = dataclasses.replace(CPU, batch=batch).build(graph, data=data, original=whole)
        latency = {row.details["role"]: row for row in built.measurements if row.name == "latency"}
        assert latency.keys() == {"chosen", "baseline", "eager"}
        assert latency["chosen"].subject == built.label != latency["baseline"].subject
        assert (latency["chosen"].details["batch"], latency["chosen"].details["calls"]) == (batch, calls)
    again = built.measure(0.01)[0]
    assert (again.subject, again.details["calls"]) == (built.label, 4)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_quantized_cascade(graph, engine):
    require(engine)
    data = [((images(64)[0],), {})]
    small = Quantize("int7", "uint8", where="conv | linear")(graph, data)
    cascade, (x, _) = planish.build(small, dataclasses.replace(CPU, engine=engine), data=data), images(30, seed=6)
    assert cascade.label.startswith(f"{engine} int7 cascade")
    assert (cascade(x).argmax(1) == small(x).argmax(1)).float().mean() > 0.9


def test_a_fixed_batch_of_one_row_can_leave(graph):
    cascade = planish.build(graph, Cpu(engine="onnxruntime", seconds=0.02, dynamic=False, batch=1))
    for row in images(8, seed=2)[0]:
        torch.testing.assert_close(cascade(row[None]), graph(row[None]))
    assert 8 == counts(cascade)[0] > counts(cascade)[2]
    with pytest.raises(OptionError, match="rows cannot leave"):
        planish.build(graph, Cpu(dynamic=False, batch=2))


class Mixing(nn.Module):
    """Rows read the mean of their batch, once or twice."""

    def __init__(self, twice: bool) -> None:
        super().__init__()
        self.blocks, self.fc = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3))), nn.Linear(4, 3)
        self.twice = twice

    def forward(self, x):
        x = self.blocks[0](x)
        mean = x.mean(0, keepdim=True)
        x = self.blocks[1](x + mean if self.twice else x)
        return self.fc(self.blocks[2](x + (mean if self.twice else x.mean(0, keepdim=True))))


@pytest.mark.parametrize(("twice", "error"), [(True, OptionError), (False, EngineError)])
def test_rows_that_need_each_other_cannot_leave(twice, error):
    torch.manual_seed(0)
    model, x = Mixing(twice).eval(), torch.randn(64, 4) * 3
    whole = capture(model, (x[:8],), dynamic={"x": {0: "batch"}}, training=False)
    small = leaving_by_halves(EarlyExit(at=("blocks.1",), loss=0.5)(whole, [((x,), {})]), x)
    with pytest.raises(error, match=r"no row for each input|differ from the graph's"):
        planish.build(small, CPU)
    assert bool(CPU.unsupported(small)) == twice


def test_an_exit_that_is_not_the_answer_is_named(graph):
    edit = graph.edit()
    output = Node(edit.graph, edit.graph.fx.output_node())
    answer = output.inputs[0]
    edit.replace_input(output, answer, edit.call(torch.ops.aten.neg.default, answer, before=output))
    (missing,) = CPU.unsupported(edit.done())
    assert missing.path.startswith("exits.")
    with pytest.raises(OptionError, match="not the model's"):
        planish.build(edit.done(), CPU)


def test_a_run_tells_how_many_rows_go_on(whole, graph, tmp_path):
    x, y = images(120)
    data = [((part,), {}, labels) for part, labels in zip(x.split(40), y.split(40), strict=True)]
    task = Task(Net(), (x[:2],), data, data, metric=("accuracy", "sqnr"))
    job = flow.Job(Run(tmp_path), flow.Source("net", whole, task), lambda *_: None)
    job.build("key", lambda: graph, dataclasses.replace(CPU, batch=1))
    job.judge("chosen")
    reached = [row for row in job.run.measurements() if row.name == "reached"]
    assert [row.details["place"] for row in reached] == [1, 2, 3]
    assert reached[0].details["rows"] == 2 * 120  # for both metrics
    assert 1 == reached[0].value > reached[1].value > reached[2].value > 0
    assert f"rows that reach each stage: 100\u202f%, {percent(reached[1].value)}" in "".join(read(job.run).conditions)
    whole.save(tmp_path / "graphs" / "captured.planish")
    with pytest.raises(UserError, match="depends on its inputs"):
        flow.bench(tmp_path, lambda *_: None)
