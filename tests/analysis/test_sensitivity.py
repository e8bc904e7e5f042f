"""Sensitivities against brute force, and what they cost."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from planish.analysis import compare, sensitivity
from planish.analysis.execute import Executor, run
from planish.errors import DataError, OptionError
from planish.formats import Format, get, int4, int8
from planish.frontends import capture
from planish.graph import ROLES, Data, Graph, ops
from planish.metrics import read_tensor
from planish.record import Measurement
from tests.frontends.families import FAMILIES

FORMATS = ("int8", "int4")


class Net(nn.Module):
    """A chain with a branch beside each layer, so that not all that follows a layer depends on it."""

    def __init__(self, depth: int = 4) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(depth))
        self.side = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        beside = self.side(x)
        for layer in self.layers:
            x = torch.relu(layer(x)) + x
        return x + beside, {"beside": beside}


@pytest.fixture
def graph() -> Graph:
    torch.manual_seed(0)
    return capture(Net().eval(), (torch.randn(2, 8),), training=False)


@pytest.fixture
def data() -> Data:
    torch.manual_seed(1)
    return [((torch.randn(2, 8),), {}) for _ in range(3)]


def cast_one(
    graph: Graph, name: str, form: Format, activations: tuple[Format, tuple[torch.Tensor, ...]] | None
) -> Graph:
    """The same cast through the editor: another road to the same numbers."""
    edit = graph.edit()
    node = graph.node(name)
    placed = form.per_channel(ROLES[node.op].out_axis)
    scale = edit.add(f"{node.weight.target}__scale", placed.parameters(node.weight.tensor)[0])
    edit.cast(node.weight, node, placed, (scale,))
    if activations is not None:
        kind, parameters = activations
        nodes = tuple(edit.add(f"{name}__input{i}", p) for i, p in enumerate(parameters))
        edit.cast(node.input, node, kind, nodes)
    return edit.done()


def inputs_of(graph: Graph, name: str, data: Data) -> list[torch.Tensor]:
    source = graph.node(name).input.fx
    executor = Executor(graph)
    runs = [executor.bind(call) for call in data]
    for values in runs:
        executor.advance(values, 0, executor.place.get(source, -1) + 1)
    return [values[source] for values in runs]


def brute_force(graph: Graph, changed: Graph, data: Data) -> float:
    signal = noise = 0.0
    for args, kwargs in data:
        exact, actual = (torch.utils._pytree.tree_leaves(g(*args, **kwargs)) for g in (graph, changed))
        signal += sum(float(e.double().square().sum()) for e in exact)
        noise += sum(float((e.double() - a.double()).square().sum()) for e, a in zip(exact, actual, strict=True))
    return 10 * math.log10(signal / noise)


def test_equals_brute_force(graph: Graph, data: Data) -> None:
    found = sensitivity(graph, data, FORMATS)
    assert len(found.losses) == 5 * 2
    for loss in found.losses:
        assert loss.sqnr == pytest.approx(
            brute_force(graph, cast_one(graph, loss.node, get(loss.format), None), data), abs=1e-3
        )


@pytest.mark.parametrize("activations", [int8.per_tensor(), int8.per_token().dynamic()])
def test_equals_brute_force_with_activations(graph: Graph, data: Data, activations: Format) -> None:
    found = sensitivity(graph, data, ["int8"], activations=activations)
    for loss in found.losses:
        seen = inputs_of(graph, loss.node, data)
        parameters = activations.parameters(torch.cat(seen))
        changed = cast_one(graph, loss.node, int8, (activations, parameters))
        assert loss.sqnr == pytest.approx(brute_force(graph, changed, data), abs=1e-3)


def test_computes_each_prefix_once(data: Data) -> None:
    depth, formats = 12, ("int8", "int4", "mxfp4", "nf4")
    graph = capture(Net(depth).eval(), (torch.randn(2, 8),), training=False)
    found = sensitivity(graph, data, formats, where="linear & path('layers.*')")
    size = len(Executor(graph).order)
    full = depth * len(formats) * len(data) * size
    assert found.executed < 0.6 * full
    # a clean run, another up to the last layer, and for each format of layer i what depends on it: three operations a
    # layer and the last addition
    suffixes = [3 * (depth - i) + 1 for i in range(depth)]
    assert found.executed == len(data) * (2 * size - suffixes[-1] + len(formats) * sum(suffixes))


def test_the_metric_costs_no_further_run_and_equals_that_of_a_cast_graph(graph: Graph, data: Data) -> None:
    def mean(model: object, items: Data) -> Measurement:
        outputs = [model(*args, **kwargs)[1]["beside"].mean() for args, kwargs in items]
        return Measurement("mean", float(torch.stack(outputs).mean()), "1", "measured")

    plain = sensitivity(graph, data, FORMATS, where="path('side')")
    found = sensitivity(graph, data, FORMATS, metric=mean, where="path('side')")
    assert found.executed == plain.executed
    assert found.reference == mean(graph, data)
    for loss in found.losses:
        assert loss.metric.value == pytest.approx(mean(cast_one(graph, loss.node, get(loss.format), None), data).value)
    fresh = [(tuple(x.clone() for x in args), kwargs) for args, kwargs in data]
    again = sensitivity(graph, data, FORMATS, metric=lambda model, _: mean(model, fresh), where="path('side')")
    assert [loss.metric.value for loss in again.losses] == [loss.metric.value for loss in found.losses]
    assert again.executed > found.executed
    assert {row.name for row in found.measurements()} == {"sensitivity", "sensitivity_metric"}


def test_a_real_architecture_and_its_order() -> None:
    family = FAMILIES["bert"]()
    graph = capture(family.model.eval(), family.example, training=False)
    found = sensitivity(graph, [((), family.example)], ["int8", "int4"], where=ops.linear)
    losses = {(loss.path, loss.format): loss.sqnr for loss in found.losses}
    assert all(losses[path, "int8"] > losses[path, "int4"] for path, _ in losses)
    assert found.ranked("int4")[0].sqnr == min(v for (_, form), v in losses.items() if form == "int4")
    assert "◀" in _text(found.table())
    row = found.measurements()[0]
    assert (row.name, row.unit, row.source) == ("sensitivity", "dB", "measured")
    assert row.details["format"] == "int8"


def _text(table: object) -> str:
    from rich.console import Console

    console = Console(width=120)
    with console.capture() as text:
        console.print(table)
    return text.get()


def test_progress_and_refusals(graph: Graph, data: Data) -> None:
    seen: list[tuple[int, int, str]] = []
    sensitivity(graph, data, ["int8"], progress=lambda *step: seen.append(step))
    assert seen[-1][:2] == (5, 5)
    with pytest.raises(OptionError, match="no format"):
        sensitivity(graph, data, [])
    with pytest.raises(OptionError, match="no layer with a weight"):
        sensitivity(graph, data, ["int8"], where="relu")
    with pytest.raises(DataError, match="empty"):
        sensitivity(graph, [], ["int8"])
    with pytest.raises(DataError, match="does not fit"):
        sensitivity(graph, [((torch.zeros(2, 9),), {})], ["int8"])
    with pytest.raises(DataError, match="structure"):
        sensitivity(graph, [((), {})], ["int8"])


@pytest.mark.parametrize("name", ["bert", "mobilenet_v2", "lstm", "t5", "gpt2-cache"])
@pytest.mark.filterwarnings("ignore:The tensor attributes")
def test_the_executor_gives_what_the_graph_gives(name: str) -> None:
    family = FAMILIES[name]()
    graph = capture(family.model.eval(), family.example, training=False)
    flat = run(Executor(graph), graph.example)
    expected = torch.utils._pytree.tree_leaves(graph(*graph.example[0], **graph.example[1]))
    assert len(flat) == len(expected)
    for one, other in zip(flat, expected, strict=True):
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_compare_finds_where_the_loss_comes_from(graph: Graph, data: Data) -> None:
    changed = cast_one(graph, "linear_2", int4, None)
    found = compare(graph, changed, data)
    by_name = {difference.node: difference for difference in found.differences}
    assert by_name["linear_1"].sqnr == 200
    assert 5 < by_name["linear_2"].sqnr < 40
    assert found.steepest.node == "linear_2"
    assert by_name[graph.outputs[0].name].sqnr < 60
    *nodes, cosine = found.measurements()
    assert {row.name for row in nodes} == {"node_sqnr"}
    rows = [(read_tensor(graph(*item[0])), read_tensor(changed(*item[0]))) for item in data]
    by_hand = [torch.nn.functional.cosine_similarity(a.flatten(1), b.flatten(1)) for a, b in rows]
    assert (cosine.name, cosine.subject) == ("mean_cosine", "changed")
    assert cosine.value == pytest.approx(float(torch.cat(by_hand).double().mean()), abs=1e-6)
    assert "linear_2" in found.table().caption


def test_compare_scores_both_by_a_metric_of_ones_own(graph: Graph, data: Data) -> None:
    targeted = [(*item[:2], read_tensor(graph(*item[0])) + 1) for item in data]
    found = compare(graph, cast_one(graph, "linear_2", int4, None), targeted, metrics=["mse"])
    assert [row.subject for row in found.metrics] == ["original", "changed"]
    assert found.metrics[0].value == pytest.approx(1)
    assert found.metrics[1].value != found.metrics[0].value
