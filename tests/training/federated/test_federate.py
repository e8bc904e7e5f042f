from __future__ import annotations

import copy
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from planish import capture
from planish.compress import Adapt, Quantize
from planish.errors import DataError, OptionError, UserError
from planish.models import digits
from planish.models.mlp import MLP
from planish.models.task import Task
from planish.training.federated import Federation, Round, federate, local
from tests.support import require

require("flwr")

SMALL = Federation(clients=4, rounds=2, batch_size=50, local=local(epochs=1))


def make(seed: int = 0) -> MLP:
    torch.manual_seed(seed)
    return MLP((64, 24, 10))


def data(count: int = 8) -> list[Any]:
    return list(digits.batches("train"))[:count]


def judged() -> Any:
    return digits.batches("evaluation")


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def shares(counts: Sequence[int] = (100, 50, 150)) -> list[list[Any]]:
    """The data of each client, given as it is."""
    images, labels = digits.digits("train")
    parts = zip(images[: sum(counts)].split(list(counts)), labels[: sum(counts)].split(list(counts)), strict=True)
    return [[((x,), {}, y)] for x, y in parts]


# What it computes ----------------------------------------------------------------------------------------------------


def test_one_round_of_fedavg_is_the_mean_weighted_by_rows() -> None:
    parts, net = shares(), make()
    wanted = {name: torch.zeros_like(value) for name, value in net.state_dict().items()}
    for part in parts:  # a batch is all rows, so that there is one step: gradient descent with Nesterov's first step
        alone = make()
        ((x,), _, y) = part[0]
        nn.functional.cross_entropy(alone(x), y).backward()
        with torch.no_grad():
            for name, p in alone.named_parameters():
                assert p.grad is not None
                wanted[name] += (p - 0.1 * 1.9 * p.grad) * len(y) / 300
    found = federate(net, parts, SMALL, clients=3, rounds=1, batch_size=500, local=local(learning_rate=0.1))
    assert found.clients == (100, 50, 150)
    assert all(torch.allclose(net.state_dict()[name], wanted[name], atol=1e-6) for name in wanted)


@pytest.mark.parametrize("strategy", ["fedavg", "fedprox", "fedadam", "fedyogi", "trimmed-mean"])
def test_strategies_learn(strategy: str) -> None:
    federation = Federation(clients=5, rounds=8, batch_size=20, local=local(epochs=2), server_rate=0.05)
    found = federate(make(), data(20), federation, strategy=strategy, evaluation=judged())
    assert found.rounds[-1].quality[0].value > 0.7
    assert found.rounds[-1].used == (0, 1, 2, 3, 4)


def test_krum_takes_an_honest_client() -> None:
    """One client of five sends the negative of everything; Krum is what a single honest client computes."""
    net = make()
    liar = {"labels": lambda y: (y + 1) % 10}
    parts = shares((100, 100, 100, 100, 100))
    ((x,), kwargs, y) = parts[2][0]
    parts[2] = [((-5 * x,), kwargs, liar["labels"](y))]
    federation = Federation(clients=5, rounds=1, batch_size=500, local=local(learning_rate=0.1), strategy="krum")
    federate(net, parts, federation)
    honest = []
    for part in parts:
        alone = make()
        federate(alone, [part], Federation(clients=1, rounds=1, batch_size=500, local=local(learning_rate=0.1)))
        honest.append(state(alone))
    same = [all(torch.allclose(net.state_dict()[n], each[n], atol=1e-6) for n in each) for each in honest]
    assert same.count(True) == 1
    assert not same[2]


def test_fedprox_stays_nearer_to_the_start() -> None:
    start = state(make())

    def moved(**options: Any) -> float:
        net = make()
        federate(net, data(), SMALL, local=local(epochs=4), rounds=1, **options)
        return sum(float((net.state_dict()[name] - start[name]).square().sum()) for name in start)

    assert moved(strategy="fedprox", proximal=1.0) < 0.8 * moved(strategy="fedprox", proximal=1e-6)
    assert moved(strategy="fedprox", proximal=1e-9) == pytest.approx(moved(), rel=1e-4)


def test_statistics_of_batch_norms_are_averaged_whatever_the_strategy() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))
    norm = net[1]
    assert isinstance(norm, nn.BatchNorm1d)
    found = federate(net, data(20), SMALL, strategy="fedadam", server_rate=0.03, rounds=4, evaluation=judged())
    assert bool((norm.running_var > 0).all())
    assert not torch.equal(norm.running_mean, torch.zeros(16))
    assert found.rounds[-1].quality[0].value > 0.5


def test_a_task_brings_its_data_and_metric() -> None:
    batches = digits.batches
    task = Task(make(), (torch.zeros(2, 64),), evaluation=batches("evaluation"), training=batches("train"))
    found = federate(task, federation=SMALL, rounds=1)
    assert sum(found.clients) == 1000
    assert found.rounds[0].quality[0].name == "accuracy"


def test_partition_by_owner_and_fraction() -> None:
    given = data()
    found = federate(make(), given, SMALL, partition="owner", owner=lambda row: int(row[2]), fraction=0.5)
    assert sum(found.clients) == 400
    assert all(len(each.used) == 2 for each in found.rounds)


def test_a_seed_decides_everything() -> None:
    nets = [make(), make()]
    for net in nets:
        federate(net, data(), SMALL, fraction=0.5, partition="dirichlet:0.5", privacy="noise=1,clip=1")
    assert all(torch.equal(value, nets[1].state_dict()[name]) for name, value in nets[0].state_dict().items())


# Graphs: casts and adapters ------------------------------------------------------------------------------------------


def test_rounds_train_through_casts() -> None:
    graph = capture(make(), (torch.zeros(2, 64),), dynamic={"x": {0: "batch"}})
    small = Quantize(weights="int4", where="linear")(graph)
    before = {name: tensor.clone() for name, tensor in small.tensors.items()}
    found = federate(small, data(20), SMALL, rounds=8, local=local(epochs=2), evaluation=judged())
    assert found.rounds[-1].quality[0].value > 0.7
    assert str(found.model).count("cast") == str(small).count("cast") > 0
    assert all(torch.equal(before[name], tensor) for name, tensor in small.tensors.items())


def test_adapters_travel_alone() -> None:
    graph = capture(make(), (torch.zeros(2, 64),), dynamic={"x": {0: "batch"}})
    thin = Adapt(rank=2)(graph)
    whole = federate(graph, data(), SMALL, rounds=1).rounds[0]
    found = federate(thin, data(), SMALL, rounds=2)
    changed = [n for n, t in found.model.tensors.items() if not torch.equal(t, thin.tensors[n])]
    assert changed
    assert all("__a" in name or "__b" in name for name in changed)
    assert found.rounds[0].received < 0.5 * whole.received


# Bytes ---------------------------------------------------------------------------------------------------------------


def test_bytes_are_those_of_the_messages() -> None:
    count = sum(p.numel() for p in make().parameters())
    one = federate(make(), data(), SMALL, rounds=1).rounds[0]
    assert 4 * 4 * count < one.received < 1.35 * 4 * 4 * count
    small = federate(make(), data(), SMALL, rounds=1, update="int8").rounds[0]
    assert 4 * count < small.received < 4 * count + 4 * 1200
    assert small.sent == one.sent


def test_compressed_updates_learn_as_well() -> None:
    found = federate(make(), data(20), SMALL, rounds=8, local=local(epochs=2), update="topk:10%", evaluation=judged())
    assert found.rounds[-1].quality[0].value > 0.8


# Privacy and secrecy -------------------------------------------------------------------------------------------------


def test_noise_has_the_deviation_that_was_asked_for() -> None:
    """Clients that do not move: what changes is the noise alone, `noise * clip / clients`."""
    net = make()
    start = state(net)
    still = local(learning_rate=1e-30)
    found = federate(net, data(), SMALL, rounds=1, local=still, privacy="noise=2,clip=0.5")
    moved = torch.cat([(net.state_dict()[name] - start[name]).reshape(-1) for name in start])
    assert float(moved.std()) == pytest.approx(2 * 0.5 / 4, rel=0.05)
    assert found.rounds[0].epsilon == pytest.approx(Federation(privacy="noise=2,clip=0.5").noisy.epsilon(1.0, 1))  # type: ignore[union-attr]


@pytest.mark.parametrize("by", ["server", "client"])
def test_updates_are_clipped(by: str) -> None:
    net = make()
    start = state(net)
    strong = local(learning_rate=1.0, epochs=5)
    federate(net, data(), SMALL, rounds=1, local=strong, privacy=f"noise=1e-6,clip=0.01,by={by}")
    moved = torch.cat([(net.state_dict()[name] - start[name]).reshape(-1) for name in start])
    assert float(moved.norm()) <= 0.0101


def test_noise_of_each_client_costs_more() -> None:
    server, client = (Federation(privacy=f"noise=1,clip=1,by={by}").noisy for by in ("server", "client"))
    assert server is not None
    assert client is not None
    assert client.epsilon(1.0, 10) > server.epsilon(1.0, 10) > server.epsilon(0.1, 10)


def test_a_secure_sum_is_the_mean() -> None:
    nets = [make(), make()]
    found = [
        federate(net, shares(), SMALL, clients=3, secure=secure)
        for net, secure in zip(nets, (False, True), strict=True)
    ]
    for name, value in nets[0].state_dict().items():
        assert torch.allclose(value, nets[1].state_dict()[name], atol=1e-4)
    assert found[0].rounds[-1].loss == pytest.approx(found[1].rounds[-1].loss, rel=1e-3)


# What goes wrong -----------------------------------------------------------------------------------------------------


def meddled(monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Tensor]], Any], client: int = 1) -> None:
    """Have a client's training end otherwise; it is known by its rows."""
    from planish.training.federated.client import Client

    train, rows = Client.train, (100, 50, 150)[client]

    def other(self: Client, *args: Any, **kwargs: Any) -> Any:
        found, loss = train(self, *args, **kwargs)
        if self.rows == rows:
            found = copy.copy(found)
            change(found)
        return found, loss

    monkeypatch.setattr(Client, "train", other)


def dies(found: dict[str, Tensor]) -> None:
    raise RuntimeError("the disk is full")


def nan(found: dict[str, Tensor]) -> None:
    found["layers.0.bias"] = found["layers.0.bias"] * torch.nan


def shorter(found: dict[str, Tensor]) -> None:
    found["layers.0.bias"] = found["layers.0.bias"][1:]


def renamed(found: dict[str, Tensor]) -> None:
    found["other"] = found.pop("layers.0.bias")


FAILURES = [
    (dies, "the disk is full"),
    (nan, "NaN or an infinity.*layers.0.bias"),
    (shorter, r"the shape is \(23,\) and not \(24,\).*layers.0.bias"),
    (renamed, "other tensors than the model"),
]
"""The last two show only where updates are not masked."""


@pytest.mark.parametrize(
    ("change", "reason", "secure"),
    [*((*each, False) for each in FAILURES), *((*each, True) for each in FAILURES[:2])],
)
def test_a_client_that_fails_is_named_and_the_others_go_on(
    change: Callable[[dict[str, Tensor]], Any], reason: str, secure: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    meddled(monkeypatch, change)
    net = make()
    found = federate(net, shares(), SMALL, clients=3, secure=secure)
    for each in found.rounds:
        assert each.used == (0, 2)
        assert [client for client, _ in each.refused] == ["1"]
        assert re.search(reason, each.refused[0][1])
    assert all(bool(torch.isfinite(value).all()) for value in net.state_dict().values())


def test_a_server_refuses_what_a_client_should_not_have_sent() -> None:
    """A NaN that a client did not notice itself."""
    from flwr.app import Message, MetricRecord, RecordDict

    from planish.training.federated.flower import ARRAYS, LOSS, METRICS, ROWS, identity, record
    from planish.training.federated.server import Server

    start = {"w": torch.ones(3)}
    with identity():
        server = Server(Federation(clients=2), start)
        server._names = {7: 0, 8: 1}
        replies = []
        for node, value in ((7, 1.0), (8, float("nan"))):
            asked = Message(RecordDict(), dst_node_id=node, message_type="train")
            content = RecordDict({ARRAYS: record({"w": torch.full((3,), value)})})
            content[METRICS] = MetricRecord({ROWS: 5, LOSS: 0.5})
            replies.append(Message(content, reply_to=asked))
        good, refused = server.admitted(replies, [7, 8])
    assert len(good) == 1
    assert refused == [("1", "the update holds NaN or an infinity (w)")]


def test_when_nobody_can_be_used_what_came_before_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = make()
    federate(net, shares(), SMALL, clients=3, rounds=2, run=tmp_path)
    before = state(net)
    with monkeypatch.context() as patched:
        patched.setattr("planish.training.federated.client.Client.train", lambda *_, **__: dies({}))
        with pytest.raises(UserError, match="no update of round 3 can be used"):
            federate(make(), shares(), SMALL, clients=3, rounds=4, run=tmp_path)
    again = make()
    found = federate(again, shares(), SMALL, clients=3, rounds=2, run=tmp_path)
    assert len(found.rounds) == 2
    assert all(torch.equal(value, before[name]) for name, value in again.state_dict().items())


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "fedadam", "server_rate": 0.03},
        {"update": "topk:5%"},
        {"fraction": 0.5, "privacy": "noise=0.5,clip=1"},
        {"strategy": "fedprox", "partition": "dirichlet:0.5"},
    ],
)
def test_a_rerun_goes_on_to_the_same_bits(options: dict[str, Any], tmp_path: Path) -> None:
    whole, parted, done = make(), make(), list[Round]()
    federate(whole, data(), SMALL, rounds=4, evaluation=judged(), **options)
    federate(parted, data(), SMALL, rounds=2, evaluation=judged(), run=tmp_path, **options)
    found = federate(make(), data(), SMALL, rounds=4, evaluation=judged(), run=tmp_path, told=done.append, **options)
    assert [each.number for each in done] == [3, 4]
    assert [each.number for each in found.rounds] == [1, 2, 3, 4]
    assert all(torch.equal(value, found.model.state_dict()[name]) for name, value in whole.state_dict().items())


def test_a_folder_of_another_federation_is_refused(tmp_path: Path) -> None:
    federate(make(), data(), SMALL, rounds=1, run=tmp_path)
    with pytest.raises(UserError, match="another model or of other options"):
        federate(make(), data(), SMALL, rounds=2, strategy="fedprox", run=tmp_path)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"strategy": "fedagv"}, "unknown federated-strategy"),
        ({"clients": 0}, "clients is a count"),
        ({"fraction": 0.0}, "a fraction is above 0"),
        ({"strategy": "krum", "clients": 4, "faulty": 1}, "2f \\+ 3 clients"),
        ({"strategy": "fedadam", "privacy": "noise=1,clip=1"}, "no mean of updates, which privacy needs"),
        ({"strategy": "krum", "clients": 9, "secure": True}, "no mean of updates, which secure needs"),
        ({"secure": True, "update": "int8"}, "nothing compresses"),
        ({"secure": True, "privacy": "noise=1,clip=1"}, "cannot clip what it does not see"),
        ({"secure": True, "clients": 2}, "hides nobody"),
        ({"privacy": "noise=1"}, "the clip is missing"),
        ({"privacy": "noise=x,clip=1"}, "cannot read"),
        ({"privacy": "noise=1,clip=1,by=me"}, "adds no noise"),
        ({"trim": 0.5}, "less than half"),
        ({"engine": "dask"}, "unknown engine"),
    ],
)
def test_options_that_are_wrong(options: dict[str, Any], what: str) -> None:
    with pytest.raises(OptionError, match=what):
        Federation(**options)


def test_data_that_is_wrong() -> None:
    with pytest.raises(DataError, match="no data to train on"):
        federate(make(), [], SMALL)
    with pytest.raises(DataError, match="is \\(args, kwargs, target\\)"):
        federate(make(), [((torch.zeros(1, 64),), {})], SMALL)
    with pytest.raises(DataError, match="2 clients, and 4 take part"):
        federate(make(), shares((10, 10)), SMALL)
    given = [((torch.zeros(40, 64),), {}, torch.zeros(40, 10))]
    with pytest.raises(DataError, match="whole-number targets"):
        federate(make(), given, SMALL, partition="dirichlet:1", loss="mse")


def test_what_cannot_train() -> None:
    net = make().requires_grad_(False)
    with pytest.raises(OptionError, match="asks for a gradient"):
        federate(net, data(), SMALL)
    noisy = nn.Sequential(nn.Linear(64, 10), nn.BatchNorm1d(10))
    with pytest.raises(OptionError, match="statistics of batch norms"):
        federate(noisy, data(), SMALL, privacy="noise=1,clip=1")


_RAY = """
import torch
from planish.models import digits
from planish.models.mlp import MLP
from planish.training.federated import federate

if __name__ == "__main__":
    for engine in ("process", "ray"):
        torch.manual_seed(0)
        net = MLP((64, 24, 10))
        data = list(digits.batches("train"))[:8]
        federate(net, data, clients=3, rounds=2, engine=engine, update="int8")
        print("norms", [float(p.double().norm()) for p in net.parameters()])
"""


@pytest.mark.long
def test_flowers_own_engine_gives_the_same_numbers(tmp_path: Path) -> None:
    """In a process of its own: Ray leaves files open, which are warnings, and warnings are errors here."""
    require("ray")
    (tmp_path / "both.py").write_text(_RAY)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "both.py")], capture_output=True, text=True, check=False, timeout=300
    )
    said = [line for line in done.stdout.splitlines() if line.startswith("norms")]
    assert len(said) == 2, done.stderr
    assert said[0] == said[1]
