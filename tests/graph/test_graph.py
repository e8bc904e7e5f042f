"""The graph as a value: views, selectors, edits that leave the original, and files that cannot run anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from planish.errors import GraphError, ModelError, OptionError, PlanishError, UntrustedFile, UserError
from planish.formats import int8
from planish.frontends import capture
from planish.graph import Graph, Node, Selector, dtype, ops, parse_selector, path


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(Block(), Block()).eval()


@pytest.fixture(scope="module")
def graph(model: nn.Module) -> Graph:
    return capture(model, (torch.randn(2, 5, 8),), dynamic={"input": {0: "batch"}})


def quantized(graph: Graph, node: Node) -> Graph:
    edit = graph.edit()
    user = edit.node(node.name)
    weight = user.weight
    assert weight is not None
    assert weight.tensor is not None
    scale = edit.add(f"{weight.target}__scale", int8.parameters(weight.tensor)[0])
    edit.cast(weight, user, int8, (scale,))
    return edit.done()


def test_text(graph: Graph) -> None:
    lines = str(graph).splitlines()
    assert lines[0] == "graph: 10 operations, 592 parameters"
    assert lines[1].split() == ["input_1", "input", "batch×5×8", "float32"]
    assert (
        lines[3].split()
        == ["linear", "linear(layer_norm,", "p_0_up_weight,", "p_0_up_bias)", "batch×5×16", "float32", "0.up"]
        or "0.up" in lines[3]
    )
    assert lines[-1].startswith("return add")


def test_view(graph: Graph) -> None:
    node = graph.select(ops.linear)[0]
    assert (node.op, node.path, node.module_type, node.shape, node.dtype) == (
        "linear",
        "0.up",
        "Linear",
        ("batch", 5, 16),
        torch.float32,
    )
    assert node.weight is not None
    assert node.weight.tensor is graph.tensors["0.up.weight"]
    assert node.input == graph.select(ops.norm)[0]
    assert [user.op for user in node.users] == ["gelu"]
    assert Path(__file__).name in node.source
    assert graph.node(node.name) == node


@pytest.mark.parametrize(
    ("selector", "count"),
    [
        (ops.linear, 4),
        (ops.linear & path("0.*"), 2),
        (ops.linear - path("*.up"), 2),
        (ops.linear | ops.gelu, 6),
        (~path("0*") & ops.any, 5),
        (ops.linear & dtype(torch.float32), 4),
    ],
)
def test_selectors(graph: Graph, selector: Selector, count: int) -> None:
    assert len(graph.select(selector)) == count
    assert len(graph.select(str(selector))) == count


_leaves = st.sampled_from([ops.linear, ops.conv, path("a.*"), path("it's"), dtype(torch.float16)])
_selectors = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.builds(lambda a: ~a, inner),
        st.builds(lambda a, b: a & b, inner, inner),
        st.builds(lambda a, b: a | b, inner, inner),
        st.builds(lambda a, b: a - b, inner, inner),
    ),
    max_leaves=8,
)


@given(_selectors)
def test_selector_text_round_trips(selector: Selector) -> None:
    assert str(parse_selector(str(selector))) == str(selector)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "linear &",
        "__import__('os').system('true')",
        "path(open('x'))",
        "path('a', 'b')",
        "linear + conv",
        "lineer",
        "(" * 500,
    ],
)
def test_unreadable_selectors(text: str) -> None:
    with pytest.raises(OptionError):
        parse_selector(text)


def test_a_selector_that_matches_nothing_says_what_there_is(graph: Graph) -> None:
    with pytest.raises(OptionError, match="matches nothing") as caught:
        graph.select(ops.conv)
    assert "layer_norm" in caught.value.where


def test_edit_leaves_the_original(graph: Graph, model: nn.Module) -> None:
    before, x = str(graph), torch.randn(3, 5, 8)
    changed = quantized(graph, graph.select(ops.linear)[0])
    assert str(graph) == before
    assert torch.equal(graph(x), model(x))
    assert not torch.equal(changed(x), model(x))
    cast = changed.select(ops.cast)[0]
    assert (cast.path, str(cast.format)) == ("0.up", str(int8))
    assert changed.tensors["0.down.weight"] is graph.tensors["0.down.weight"]
    expected = int8.cast(graph.tensors["0.up.weight"], int8.parameters(graph.tensors["0.up.weight"]))
    torch.testing.assert_close(changed.base_state_dict()["0.up.weight"], expected)
    assert set(changed.base_state_dict()) == set(model.state_dict())


def test_replaced_nodes_and_their_tensors_disappear(graph: Graph) -> None:
    edit = graph.edit()
    norm = edit.node(graph.select(ops.norm)[0].name)
    edit.replace(norm, norm.inputs[0])
    smaller = edit.done()
    assert len(smaller.select(ops.norm)) == 1
    assert "0.norm.weight" not in smaller.tensors


def test_an_edited_batch_norm_still_counts_its_batches() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    net = capture(model, (torch.randn(2, 3, 8, 8),)).edit().done().module().train()
    net(torch.randn(2, 3, 8, 8))
    assert int(net.state_dict()["1.num_batches_tracked"]) == 1


def test_a_call_that_does_not_fit_is_refused(graph: Graph) -> None:
    edit = graph.edit()
    node = edit.node(graph.select(ops.linear)[0].name)
    with pytest.raises(GraphError, match="does not take these values"):
        edit.call(torch.ops.aten.linear.default, node, node.weight, before=node.users[0])


def test_a_name_is_not_reused_for_other_values(graph: Graph) -> None:
    with pytest.raises(GraphError, match="exists already"):
        graph.edit().add("0.up.bias", torch.ones(16))


def test_verify_rejects_wrong_graphs(graph: Graph) -> None:
    node = graph.select(ops.linear)[0]
    changed = quantized(graph, node)
    without_scale = changed.edit()
    cast = without_scale.node(changed.select(ops.cast)[0].name)
    without_scale.set_args(cast, cast.args[0], [], str(int8))
    with pytest.raises(GraphError, match=r"takes 1 parameters \(scale\), not 0") as caught:
        without_scale.done()
    assert "0.up" in caught.value.where
    missing = changed.replace(tensors={})
    with pytest.raises(GraphError, match="does not exist"):
        missing.verify()
    foreign = graph.edit()
    foreign.call(torch.relu, foreign.node(node.name), before=foreign.node(node.users[0].name))
    with pytest.raises(GraphError, match="not an operation that a graph may hold"):
        foreign.graph.verify()


def test_saved_and_loaded(graph: Graph, tmp_path: Path) -> None:
    changed = quantized(graph, graph.select(ops.linear)[0])
    changed.save(tmp_path / "q.planish")
    loaded = Graph.load(tmp_path / "q.planish")
    x = torch.randn(4, 5, 8)
    assert torch.equal(loaded(x), changed(x))
    assert str(loaded) == str(changed)
    assert loaded.dynamic == changed.dynamic
    assert loaded.buffers == changed.buffers
    loaded.module().train()(x).sum().backward()


def tampered(graph: Graph, folder: Path, change) -> Path:
    graph.save(folder / "m.planish")
    with safe_open(folder / "m.planish", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        document = json.loads(file.metadata()["planish"])
    change(document)
    save_file(tensors, folder / "bad.planish", metadata={"planish": json.dumps(document)})
    return folder / "bad.planish"


def _set(key: str, value: object, op: str = "call_function"):
    def change(document: dict) -> None:
        next(row for row in document["graph"]["nodes"] if row["op"] == op)[key] = value

    return change


_CODE = "x; __import__('pathlib').Path('pwned').touch()"


_ENUM = json.dumps(
    [1, {"type": "builtins.dict", "context": json.dumps([{"__enum__": True, "fqn": "os:system"}]), "children_spec": []}]
)


@pytest.mark.parametrize(
    "change",
    [
        _set("target", "os.system"),
        _set("target", "operator.attrgetter"),
        _set("target", "aten.from_file.default"),
        _set("target", "aten.__class__.default"),
        _set("target", "aten.linear.__call__"),
        _set("target", _CODE, "get_attr"),
        _set("target", "__class__.x", "get_attr"),
        _set("name", _CODE),
        _set("name", _CODE, "placeholder"),
        _set("target", _CODE, "placeholder"),
        _set("op", "call_module"),
        _set("args", {"$tuple": [{"$eval": _CODE}]}),
        _set("args", {"$tuple": [{"$dtype": "load"}]}),
        lambda document: document["graph"].update(arguments=[_CODE]),
        lambda document: document["graph"].update(
            in_spec='[1, {"type": "os.system", "context": "1", "children_spec": []}]'
        ),
        lambda document: document["graph"].update(out_spec=_ENUM),
        lambda document: document.update(version=99),
        lambda document: document["graph"].update(nodes=[]),
        lambda document: document.pop("graph"),
    ],
)
def test_a_file_cannot_run_anything(graph: Graph, tmp_path: Path, change, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PlanishError) as caught:
        Graph.load(tampered(graph, tmp_path, change))
    assert isinstance(caught.value, UntrustedFile | GraphError)
    assert not (tmp_path / "pwned").exists()


def test_files_that_are_no_graph(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        Graph.load(tmp_path / "absent.planish")
    for content in (b"", b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR.", b"PK\x03\x04" + b"x" * 100, b"\xff" * 64):
        (tmp_path / "x.planish").write_bytes(content)
        with pytest.raises(UntrustedFile, match=r"not a readable"):
            Graph.load(tmp_path / "x.planish")


def test_a_disk_that_refuses_keeps_the_old_file(graph: Graph, tmp_path: Path) -> None:
    target = tmp_path / "m.planish"
    graph.save(target)
    before = target.read_bytes()
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match="cannot write the graph"):
        graph.save(blocked / "m.planish")
    assert target.read_bytes() == before
