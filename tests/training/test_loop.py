"""The loop against loops written out by hand, and its promise that a kill changes no bit."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import planish
from planish.errors import DataError, ModelError, OptionError, UserError
from planish.frontends import capture
from planish.record import Run
from planish.training import Checkpoints, Diverged, History, Moment, Tracker, Training, train

Data = list[tuple[tuple[Tensor, ...], dict[str, Any], Tensor]]


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    first = nn.Linear(8, 16, bias=False)  # before a batch norm, a bias has a gradient of rounding alone
    return nn.Sequential(first, nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 4), nn.LayerNorm(4))


def plain(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))


def data(count: int = 6, rows: int = 4) -> Data:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(count, rows, 8, generator=generator)
    return [((each,), {}, (each.sum(1) > 0).long() + 2 * (each[:, 0] > 0).long()) for each in x]


class Watch:
    """Keeps every step's moment, and may stop the training after one."""

    def __init__(self, stop: int | None = None) -> None:
        self.moments: list[Moment] = []
        self.epochs, self.ends = 0, 0
        self._stop = stop

    def on_step(self, moment: Moment) -> None:
        self.moments.append(moment)
        if moment.step == self._stop:
            raise RuntimeError("killed")

    def on_epoch(self, moment: Moment) -> None:
        self.epochs += 1

    def on_end(self, moment: Moment) -> None:
        self.ends += 1


def test_equals_a_loop_written_by_hand() -> None:
    options = Training(epochs=3, shuffle=False, clip=0.5, warmup=0.0, schedule="linear", weight_decay=0.01)
    ours, watch = network(), Watch()
    train(ours, data(), options, callbacks=[watch])

    theirs = network().train()
    torch.manual_seed(0)
    matrices = [p for p in theirs.parameters() if p.dim() > 1]
    others = [p for p in theirs.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - (step + 1) / 19)
    losses = []
    for _ in range(3):
        for (x,), _, y in data():
            loss = nn.functional.cross_entropy(theirs(x), y)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
    assert [moment.loss for moment in watch.moments] == pytest.approx(losses, rel=1e-6)
    for mine, its in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-6)
    assert (watch.epochs, watch.ends, len(watch.moments)) == (3, 1, 18)


def test_accumulating_equals_one_large_batch() -> None:
    small, large = plain().double(), plain().double()
    items = [((x.double(),), {}, y) for (x,), _, y in data(6, 4)]
    joined = [
        ((torch.cat([x for (x,), _, _ in items[i : i + 3]]),), {}, torch.cat([y for _, _, y in items[i : i + 3]]))
        for i in (0, 3)
    ]
    options = {"epochs": 2, "shuffle": False, "optimizer": "sgd", "learning_rate": 0.1}
    train(small, items, Training(accumulate=3, **options))
    train(large, joined, Training(**options))
    for one, other in zip(small.parameters(), large.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_what_is_left_of_an_epoch_is_a_step_of_its_own() -> None:
    watch = Watch()
    train(plain(), data(5), Training(epochs=2, accumulate=3), callbacks=[watch])
    assert len(watch.moments) == 4


class Noisy(Dataset[Tensor]):
    """Draws from torch, as augmentation does."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        x = torch.full((8,), place / 12) + 0.1 * torch.randn(8)
        return x, torch.tensor(place % 4)


class Loaded:
    """A shuffling loader, as items of data."""

    def __init__(self) -> None:
        self.loader = DataLoader(Noisy(), batch_size=3, shuffle=True)

    def __iter__(self) -> Any:
        return (((x,), {}, y) for x, y in self.loader)


OPTIONS = {
    "plain": Training(epochs=3),
    "accumulated, averaged, SGD": Training(epochs=3, accumulate=2, average=0.9, optimizer="sgd"),
    "one-cycle, bf16": Training(steps=9, precision="bf16", schedule="one-cycle", warmup=0.0),
    "fp16": Training(epochs=2, precision="fp16"),
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("loaded", [False, pytest.param(True, marks=pytest.mark.long)], ids=["list", "loader"])
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step()`")
def test_a_kill_at_any_step_changes_no_bit(options: Training, loaded: bool, tmp_path: Path) -> None:
    def items() -> Any:
        return Loaded() if loaded else data(4)

    whole, watch = network(), Watch()
    train(whole, items(), options, callbacks=[watch])
    for stop in range(1, len(watch.moments) + 1):
        folder = tmp_path / str(stop)
        with pytest.raises(UserError, match="killed"):
            train(network(), items(), options, callbacks=[Watch(stop)], checkpoints=Checkpoints(folder, every=1))
        torch.manual_seed(stop)  # another process has its own state
        resumed, rest = network(seed=99), Watch()
        train(resumed, items(), options, callbacks=[rest], checkpoints=Checkpoints(folder, every=1))
        for name, tensor in whole.state_dict().items():
            assert torch.equal(resumed.state_dict()[name], tensor), (stop, name)
        assert [m.loss for m in rest.moments] == [m.loss for m in watch.moments[stop:]]


def test_a_kill_between_checkpoints_changes_no_bit(tmp_path: Path) -> None:
    options = Training(epochs=3)
    whole = network()
    train(whole, data(), options)
    with pytest.raises(UserError, match="killed"):
        train(network(), data(), options, callbacks=[Watch(11)], checkpoints=Checkpoints(tmp_path, every=4))
    resumed, rest = network(seed=1), Watch()
    train(resumed, data(), options, callbacks=[rest], checkpoints=Checkpoints(tmp_path, every=4))
    assert rest.moments[0].step == 9
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


@pytest.mark.parametrize("torn", [True, False], ids=["torn", "missing"])
def test_a_torn_checkpoint_gives_way_to_the_one_before(tmp_path: Path, torn: bool) -> None:
    with pytest.raises(UserError, match="killed"):
        train(plain(), data(), Training(epochs=3), callbacks=[Watch(7)], checkpoints=Checkpoints(tmp_path, every=2))
    *_, before, last = sorted(tmp_path.iterdir())
    (shard,) = last.glob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-100]) if torn else shard.unlink()
    rest = Watch()
    train(plain(), data(), Training(epochs=3), callbacks=[rest], checkpoints=Checkpoints(tmp_path))
    assert rest.moments[0].step == int(before.stem.removeprefix("step-")) + 1 == 5
    for file in tmp_path.glob("*/*.safetensors"):
        file.write_bytes(b"")
    with pytest.raises(UserError, match="no checkpoint can be read"):
        train(plain(), data(), Training(epochs=3), checkpoints=Checkpoints(tmp_path))


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    train(plain(), data(), Training(epochs=1), checkpoints=Checkpoints(tmp_path))
    with pytest.raises(UserError, match="other options"):
        train(plain(), data(), Training(epochs=2), checkpoints=Checkpoints(tmp_path))
    with pytest.raises(UserError, match="another model"):
        train(network(), data(), Training(epochs=1), checkpoints=Checkpoints(tmp_path))


def test_no_pickle_in_a_checkpoint(tmp_path: Path) -> None:
    train(network(), data(), Training(epochs=1), checkpoints=Checkpoints(tmp_path))
    (folder,) = tmp_path.iterdir()
    assert {file.suffix for file in folder.iterdir()} == {".safetensors", ".json"}
    for file in folder.glob("*.safetensors"):
        content = file.read_bytes()
        size = int.from_bytes(content[:8], "little")
        assert content[8:9] == b"{"
        assert 8 + size < len(content)


def test_what_diverges_names_the_step_and_loses_nothing() -> None:
    items = data()
    items[4] = ((torch.full((4, 8), torch.inf),), {}, items[4][2])
    model, stopped = plain(), plain()
    with pytest.raises(Diverged, match="step 5") as caught:
        train(model, items, Training(epochs=1, shuffle=False))
    assert caught.value.module is model
    with pytest.raises(UserError, match="killed"):
        train(stopped, items, Training(epochs=1, shuffle=False), callbacks=[Watch(4)])
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), stopped.parameters(), strict=True))


def test_a_failing_callback_is_named() -> None:
    with pytest.raises(UserError, match=r"Watch failed in on_step: RuntimeError: killed.*\n.*step 2"):
        train(plain(), data(), Training(epochs=1), callbacks=[Watch(2)])


def test_the_clock_ends_a_training_and_its_schedule() -> None:
    watch, start = Watch(), time.monotonic()
    train(plain(), data(), Training(minutes=0.01), callbacks=[watch])
    assert time.monotonic() - start < 5
    assert watch.moments[-1].share == 1.0
    assert watch.moments[-1].learning_rate < 1e-4


def test_history_is_measurements(tmp_path: Path) -> None:
    history = History(Run(tmp_path))
    train(plain(), data(), Training(epochs=2), callbacks=[history])
    assert [row.name for row in history.rows] == ["training_loss"] * 2 + ["training_steps", "training_time"]
    assert history.rows[2].value == 12
    assert [row.name for row in Run(tmp_path).measurements()] == [row.name for row in history.rows]


def test_history_goes_on_with_the_training(tmp_path: Path) -> None:
    class Down(Watch):
        def on_step(self, moment: Moment) -> None:
            if moment.step == 15:
                raise RuntimeError("down")

    def again(*more: Watch) -> None:
        kept = Checkpoints(tmp_path / "checkpoints", every=4)
        train(plain(), data(), Training(epochs=4), callbacks=[*more, History(Run(tmp_path))], checkpoints=kept)

    with pytest.raises(UserError, match="down"):
        again(Down())
    first = Run(tmp_path).measurements()
    assert [row.details["epoch"] for row in first] == [1, 2]  # of 6 steps each
    again()
    rows = Run(tmp_path).measurements()
    assert rows[:2] == first
    assert [row.details.get("epoch") for row in rows] == [1, 2, 3, 4, None, None]
    again()  # nothing is left to do
    assert [row.name for row in Run(tmp_path).measurements()] == [row.name for row in rows]


def test_a_tracker_gets_every_step() -> None:
    logged: list[tuple[dict[str, float], int]] = []
    closed: list[bool] = []
    train(
        plain(),
        data(),
        Training(epochs=1),
        callbacks=[Tracker(lambda v, s: logged.append((v, s)), lambda: closed.append(True))],
    )
    assert [step for values, step in logged if "train/loss" in values] == [1, 2, 3, 4, 5, 6]
    assert closed == [True]


def test_the_users_randomness_stays() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    model = network()
    torch.manual_seed(3)
    train(model, data(), Training(epochs=1))
    assert torch.equal(torch.rand(1), expected)


def test_a_seed_decides_everything() -> None:
    runs = [network(), network(), network()]
    for run, seed in zip(runs, (1, 1, 2), strict=True):
        train(run, data(), Training(epochs=2, seed=seed))
    same, other = (
        [torch.equal(a, b) for a, b in zip(runs[0].parameters(), r.parameters(), strict=True)] for r in runs[1:]
    )
    assert all(same)
    assert not any(other)


def test_progress_ends_at_its_total() -> None:
    seen: list[tuple[int, int, str]] = []
    train(plain(), data(), Training(epochs=1), progress=lambda *now: seen.append(now))
    assert seen[-1][:2] == (1000, 1000)
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)


def test_a_graph_trains_as_its_module_does() -> None:
    model = network()
    graph = capture(model, (torch.randn(4, 8),), dynamic={"input": {0: "batch"}}, training=True)
    before = {name: tensor.detach().clone() for name, tensor in graph.tensors.items()}
    result = planish.train(graph, data(), Training(epochs=2))
    assert all(torch.equal(tensor, before[name]) for name, tensor in graph.tensors.items())
    train(model.eval(), data(), Training(epochs=2))  # shares its tensors with the graph
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(result.tensors[name].detach(), tensor, rtol=1e-5, atol=1e-6)
    assert int(result.tensors["1.num_batches_tracked"]) == 12
    result.verify()


def test_bad_input_is_told_at_the_door() -> None:
    with pytest.raises(DataError, match="no data"):
        train(plain(), [], Training(epochs=1))
    with pytest.raises(DataError, match="target"):
        train(plain(), [((torch.ones(1, 8),), {})], Training(epochs=1))
    with pytest.raises(OptionError, match="no parameter"):
        train(plain().requires_grad_(False), data(), Training(epochs=1))
    with pytest.raises(OptionError, match="a graph or a module"):
        train("minilm", data(), Training(epochs=1))  # type: ignore[type-var]
    model = network().eval()
    graph = capture(model, (torch.randn(4, 8),), training=False)
    with pytest.raises(ModelError, match="evaluation only"):
        train(graph, data(), Training(epochs=1))
