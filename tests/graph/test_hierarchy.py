"""The user's module tree: hooks, tied weights, both modes, and the wrappers of torch.distributed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from planish.errors import ModelError
from planish.formats import int8
from planish.frontends import capture
from planish.graph import Graph, ops
from tests.graph.test_graph import quantized


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.out = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        weights = torch.softmax(self.query(x) @ self.key(x).transpose(1, 2) * scale, -1)
        return self.out(self.dropout(weights) @ x), weights


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.norm, self.act = Attention(), nn.LayerNorm(8), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y, weights = self.attention(x)
        return self.act(self.norm(x + self.act(y))) * weights.mean()


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleList([Layer(), Layer()])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layer:
            x = layer(x)
        return x


class Model(nn.Module):
    """Tied weights, modules called twice, several results, a module that takes another."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.encoder, self.head = nn.Embedding(9, 8), Encoder(), nn.Linear(8, 9, bias=False)
        self.norm = nn.BatchNorm1d(8)
        self.head.weight = self.embed.weight
        self.register_buffer("shift", torch.ones(8), persistent=False)

    def forward(self, ids: Tensor) -> dict[str, Tensor]:
        x = self.encoder(self.embed(ids)) + self.shift
        return {"logits": self.head(self.norm(x.transpose(1, 2)).transpose(1, 2)), "hidden": x}


IDS = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    return Model().eval()


@pytest.fixture(scope="module")
def graph(model: Model) -> Graph:
    return capture(model, (IDS,), dynamic={"ids": {0: "batch", 1: "tokens"}})


def test_the_tree_is_the_users(graph: Graph, model: Model) -> None:
    net = graph.module(hierarchical=True)
    assert {name for name, _ in net.named_modules()} == {name for name, _ in model.named_modules()}
    assert set(net.state_dict()) == set(model.state_dict())
    assert {name for name, _ in net.named_parameters()} == {name for name, _ in model.named_parameters()}
    assert isinstance(net.encoder.layer, nn.ModuleList)
    assert type(net.encoder.layer[0]).__name__ == "Layer"
    assert net.head.weight is net.embed.weight
    assert net.head.weight is not model.head.weight
    assert net.shift is not None
    for ids in (IDS, IDS[:1, :3]):
        for name, expected in model(ids).items():
            torch.testing.assert_close(net(ids)[name], expected)


def test_its_state_fits_the_users_model(graph: Graph, model: Model) -> None:
    other = Model()
    other.load_state_dict(graph.module(hierarchical=True).state_dict())
    torch.testing.assert_close(other.eval()(IDS)["logits"], model(IDS)["logits"])


def test_hooks_fire_once_for_each_call(graph: Graph, model: Model) -> None:
    def calls(net: nn.Module) -> list[str]:
        seen: list[str] = []
        handles = [m.register_forward_hook(lambda *_, n=n: seen.append(n)) for n, m in net.named_modules()]
        net(IDS)
        for handle in handles:
            handle.remove()
        return seen

    assert calls(graph.module(hierarchical=True)) == calls(model)


def test_both_modes_train_as_the_model_does(graph: Graph, model: Model) -> None:
    net, twin = graph.module(hierarchical=True), Model()
    twin.load_state_dict(model.state_dict())
    for training in (True, False, True):
        for each in (net, twin):
            torch.manual_seed(1)
            each.train(training)
            optimizer = torch.optim.SGD(each.parameters(), lr=0.1)
            each(IDS)["logits"].square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    for name, tensor in twin.state_dict().items():
        torch.testing.assert_close(net.state_dict()[name], tensor)


def test_inserted_steps_and_tensors_live_in_the_module_that_reads_them(graph: Graph) -> None:
    target = next(node for node in graph.select(ops.linear) if node.path == "encoder.layer.0.attention.query")
    changed = quantized(graph, target)
    net = changed.module(hierarchical=True)
    assert "weight__scale" in dict(net.encoder.layer[0].attention.query.named_buffers())
    torch.testing.assert_close(net(IDS)["logits"], changed(IDS)["logits"])


def test_a_cast_that_several_modules_read_stands_in_the_module_around_them(graph: Graph) -> None:
    edit = graph.edit()
    query, key = (
        next(node for node in graph.nodes if node.path == f"encoder.layer.1.attention.{name}")
        for name in ("query", "key")
    )
    cast = edit.cast(edit.node(query.input.name), edit.node(query.name), int8.per_token().dynamic(), ())
    edit.replace_input(edit.node(key.name), edit.node(query.input.name), cast)
    changed = edit.done()
    net = changed.module(hierarchical=True)
    results = []
    net.encoder.layer[1].attention.query.register_forward_hook(lambda _m, _a, result: results.append(result))
    torch.testing.assert_close(net(IDS)["logits"], changed(IDS)["logits"])
    assert isinstance(results[0], Tensor)


class Passing(nn.Module):
    """A module that reads what it also hands on."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = Handing(), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y, z = self.first(x)
        return self.last(y) + z


class Handing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.up(x).relu()
        return y, self.down(y)


def test_a_cast_that_is_read_inside_and_outside_leaves_its_module_whole() -> None:
    graph = capture(Passing().eval(), (torch.randn(3, 4),))
    edit = graph.edit()
    down, last = (next(edit.node(n.name) for n in graph.nodes if n.path == path) for path in ("first.down", "last"))
    assert down.input is not None
    assert down.input == last.input
    cast = edit.cast(down.input, down, int8.per_token().dynamic(), ())
    edit.replace_input(last, last.input, cast)
    changed, seen, x = edit.done(), [], torch.randn(3, 4)
    net = changed.module(hierarchical=True)
    for name, module in net.named_modules():
        module.register_forward_hook(lambda *_, name=name: seen.append(name))
    torch.testing.assert_close(net(x), changed(x))
    assert seen == ["first.up", "first.down", "first", "last", ""]


class Differs(nn.Module):
    """One module that computes two things, and one that is not a part of the module that calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.power, self.caller, self.fc = Power(), Caller(), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.power(self.caller(self.power(x, 2), self.fc), 3)


class Power(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain, self.fc = nn.Parameter(torch.ones(4)), nn.Linear(4, 4)

    def forward(self, x: Tensor, exponent: int) -> Tensor:
        return self.fc((x * self.gain) ** exponent)


class Caller(nn.Module):
    def forward(self, x: Tensor, callee: nn.Module) -> Tensor:
        return callee(x).relu()


def test_calls_that_are_no_plain_tree_keep_their_values_and_names(tmp_path: Path) -> None:
    model, x = Differs().eval(), torch.randn(3, 4)
    graph = capture(model, (x,))
    graph.save(tmp_path / "d.planish")
    for each in (graph, Graph.load(tmp_path / "d.planish")):
        net = each.module(hierarchical=True)
        assert set(net.state_dict()) == set(model.state_dict())
        torch.testing.assert_close(net(x), model(x))
        net.train()(x).sum().backward()
        assert all(parameter.grad is not None for parameter in net.parameters())


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def _loss(net: nn.Module) -> Tensor:
    torch.manual_seed(1)
    return net.train()(IDS)["logits"].square().mean()


@pytest.mark.usefixtures("group")
def test_fully_shard_takes_a_layer(graph: Graph) -> None:
    plain, net = graph.module(hierarchical=True), graph.module(hierarchical=True)
    mesh = init_device_mesh("cpu", (1,))
    for layer in net.encoder.layer:
        fully_shard(layer, mesh=mesh)
    fully_shard(net, mesh=mesh)
    expected, got = _loss(plain), _loss(net)
    torch.testing.assert_close(got, expected)
    expected.backward()
    got.backward()
    for (name, parameter), (_, sharded) in zip(plain.named_parameters(), net.named_parameters(), strict=True):
        torch.testing.assert_close(sharded.grad.full_tensor(), parameter.grad, msg=name)
    torch.testing.assert_close(net.eval()(IDS)["logits"], plain.eval()(IDS)["logits"])


@pytest.mark.usefixtures("group")
def test_data_parallel_takes_the_model(graph: Graph) -> None:
    net, plain = graph.module(hierarchical=True), graph.module()
    wrapped = DistributedDataParallel(net)
    expected, got = _loss(plain), _loss(wrapped)
    torch.testing.assert_close(got, expected)
    expected.backward()
    got.backward()
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(net.get_parameter(name).grad, parameter.grad, msg=name)


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch's own, when it copies a structure
def test_a_copy_has_modes_of_its_own(graph: Graph) -> None:
    net = graph.module(hierarchical=True)
    twin = copy.deepcopy(net).train()
    assert twin.head.weight is not net.head.weight
    assert torch.equal(net(IDS)["logits"], net(IDS)["logits"])
    assert not torch.equal(twin(IDS)["logits"], twin(IDS)["logits"])
    evaluation = capture(Model().eval(), (IDS,), training=False).module(hierarchical=True)
    for each in (evaluation, copy.deepcopy(evaluation)):
        with pytest.raises(ModelError, match="evaluation only"):
            each.train()


def test_it_compiles(graph: Graph) -> None:
    net = graph.module(hierarchical=True)
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(IDS)["logits"], net(IDS)["logits"])
