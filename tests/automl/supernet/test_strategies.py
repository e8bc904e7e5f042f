"""Strategies: small runs that end where they should, and each equation against one written out."""

from __future__ import annotations

import math
import random
from itertools import product

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad

from planish.automl.supernet import Darts, Gdas, Proxyless, Sandwich, SinglePath, Slot, Supernet
from planish.automl.supernet.collapse import verdict
from planish.automl.supernet.gradient import Alphas, likeliest
from planish.automl.supernet.rank import misfit, some_points
from planish.automl.supernet.result import Weights, fair
from planish.automl.supernet.sandwich import by_size
from planish.compress import Depth, Replace, Width
from planish.errors import DataError, OptionError
from planish.frontends import capture
from planish.models.mlp import MLP
from tests.automl.supernet.spaces import data, loss, supernet

SMALL = {
    "single": SinglePath(steps=60, learning_rate=2e-2),
    "darts": Darts(steps=20),
    "darts2": Darts(steps=6, order=2),
    "gdas": Gdas(steps=40, finalists=4),
    "proxyless": Proxyless(steps=40, finalists=4),
    "sandwich": Sandwich(steps=12),
}


@pytest.mark.parametrize("name", SMALL)
def test_runs_are_repeated_to_the_bit(name):
    told: list[tuple[int, int, str]] = []

    def search():
        return SMALL[name].run(supernet(), data("train"), data("validation"), loss, 3, lambda *now: told.append(now))

    before = torch.random.get_rng_state()
    first, second = search(), search()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert (first.point, first.ranking, first.history) == (second.point, second.ranking, second.history)
    assert first.point.keys() == {"edge0", "edge1"}
    assert all(math.isfinite(value) for row in first.history for value in row.values())
    assert told[-1][0] == told[-1][1]
    assert first.collapsed == bool(first.note)


def test_single_path_tells_empty_cells_from_full_ones():
    result = SMALL["single"].run(supernet(), data("train"), data("validation"), loss)
    errors = {(point["edge0"], point["edge1"]): error for point, error in result.ranking}
    assert len(errors) == 16
    assert errors["conv3x3", "conv3x3"] < errors["none", "none"]
    assert "conv3x3" in result.point.values()


def _slim() -> Supernet:
    torch.manual_seed(0)
    graph = capture(MLP((8, 16, 16, 3)).eval(), (torch.randn(2, 8),), {"x": {0: "batch"}})
    slots = [
        Slot(f"width{layer}", (0.25, 1.0, 0.5), (Width(0.25, where), None, Width(0.5, where)))
        for layer, where in enumerate(("path('layers.0')", "path('layers.1')"))
    ]
    return Supernet(graph, slots)


def test_sandwich_trains_all_widths_and_opens_them_by_size():
    net = _slim()
    assert by_size(net) == [[1, 2, 0], [1, 2, 0]]
    step = Sandwich(steps=100, shrink=0.5)
    assert [step._count(3, at) for at in (0, 16, 17, 34, 50, 99)] == [1, 1, 2, 3, 3, 3]
    assert Sandwich(shrink=0.0)._count(3, 0) == 3
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 8, generator=generator)
    items = [((part,), {}, (part[:, :3]).argmax(1)) for part in x.split(50)]
    result = Sandwich(steps=80, learning_rate=1e-2).run(net, items, items, loss)
    for label in (0.25, 0.5, 1.0):
        net.choose({"width0": label, "width1": label})
        assert float((net(x).argmax(1) == x[:, :3].argmax(1)).float().mean()) > 0.7, label
    assert len(result.ranking) == 9


class _Toy(nn.Module):
    """y = tanh(w x) per option scale: two options differ by which of two weights they read."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))


def test_second_order_darts_is_the_gradient_through_one_step():
    """Equation 7 of arXiv 1806.09055, by differentiating through the step itself."""
    torch.manual_seed(0)
    graph = capture(_Toy(), (torch.randn(2, 3),), {"x": {0: "batch"}}).to(dtype=torch.float64)
    net = Supernet(
        graph, [Slot("act", ("tanh", "skip", "zero"), (None, Replace("identity", "tanh"), Replace("zero", "tanh")))]
    )
    train, held = [((torch.randn(6, 3).double(),), {}, torch.randn(6, 1).double()) for _ in range(2)]

    def squares(module, item):
        return (module(*item[0]) - item[2]).square().mean()

    alphas, rate = Alphas(net, 1.0), 0.05
    alphas.values = [nn.Parameter(torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64))]
    moved: list[torch.Tensor] = []
    alphas.move = lambda gradients: moved.extend(gradients)  # type: ignore[method-assign, assignment]
    weights = Weights.of(net, 25 * rate, 0.0, 100)  # OneCycle begins at a 25th
    assert weights.now == pytest.approx(rate)
    start = [each.detach().clone() for each in weights.parameters]
    Darts(order=2).learn(net, alphas, weights, train, held, squares, 0.5)
    assert all(torch.equal(one, other) for one, other in zip(weights.parameters, start, strict=True))

    parameters = {name: value.detach() for name, value in net.named_parameters()}

    def value(parameters, alpha, item):
        net.choice = [list(enumerate(alpha.softmax(0)))]
        return (functional_call(net, parameters, item[0]) - item[2]).square().mean()

    def outer(alpha):
        inner = grad(value)(parameters, alpha, train)
        return value({name: p - rate * inner[name] for name, p in parameters.items()}, alpha, held)

    torch.testing.assert_close(moved[0], grad(outer)(alphas.values[0].detach()), rtol=1e-3, atol=1e-6)


def test_proxyless_moves_two_numbers_and_no_other_probability():
    """Section 3.2.1 of arXiv 1812.00332: gradients by the gates of two paths, the mass of both kept."""
    torch.manual_seed(1)
    net, item = supernet(), data("validation")[0]
    alphas = Alphas(net, 0.1)
    alphas.values = [nn.Parameter(torch.tensor([0.1, 0.4, -0.3, 0.2])) for _ in range(2)]
    alphas._optimizer = torch.optim.Adam(alphas.values, lr=0.1)
    before = [p.clone() for p in alphas.probabilities]
    Proxyless().learn(net, alphas, Weights.of(net, 1e-2, 0.0, 100), item, item, loss, 0.5)
    for old, new in zip(before, alphas.probabilities, strict=True):
        moved = (old - new).abs() > 1e-6
        assert int(moved.sum()) == 2
        torch.testing.assert_close(new[moved].sum(), old[moved].sum())
        torch.testing.assert_close(new[~moved], old[~moved])


def test_gdas_passes_on_one_option_with_the_gradient_of_the_soft_choice():
    """Equation 5 of arXiv 1910.04465: forward the drawn one, backward the softmax with noise at a temperature."""
    torch.manual_seed(0)
    alphas = Alphas(supernet(), 0.1)
    state = torch.random.get_rng_state()
    ((option, share),), _ = Gdas()._drawn(alphas, 0.5)
    torch.random.set_rng_state(state)
    noise = -torch.empty(4).exponential_().log()
    value = alphas.values[0].detach().clone().requires_grad_()
    soft = ((value.log_softmax(0) + noise) / 5.05).softmax(0)
    assert option == int(soft.argmax())
    assert float(share.detach()) == 1.0
    (mine,) = torch.autograd.grad(share, alphas.values[0])
    torch.testing.assert_close(mine, torch.autograd.grad(soft[option], value)[0])


def test_likeliest_points_are_those_of_all():
    torch.manual_seed(0)
    probabilities = [torch.rand(n).softmax(0) for n in (3, 2, 4)]
    everything = sorted(
        product(range(3), range(2), range(4)),
        key=lambda each: -math.prod(float(p[o]) for p, o in zip(probabilities, each, strict=True)),
    )
    assert likeliest(probabilities, 7) == everything[:7]


def test_fair_paths_hold_each_option_equally_often():
    paths = fair([2, 3], random.Random(0))
    drawn = [next(paths) for _ in range(60)]
    assert [sum(path[1] == option for path in drawn) for option in range(3)] == [20, 20, 20]
    assert all({drawn[3 * i + k][1] for k in range(3)} == {0, 1, 2} for i in range(20))


def test_misfit_is_least_squares_on_the_other_half():
    torch.manual_seed(0)
    x, y = torch.randn(21, 4), torch.randint(0, 3, (21,))
    total = []
    for fit, held in ((0, 1), (1, 0)):
        a, b = (torch.cat([x[:20][half::2], torch.ones(10, 1)], 1).double() for half in (fit, held))
        hot = nn.functional.one_hot(y[:20]).double()
        root = (1e-2 * (float(x.var()) + 1e-6) * 10) ** 0.5
        padded = torch.cat([a, root * torch.eye(5).double()])
        solved = torch.linalg.lstsq(padded, torch.cat([hot[fit::2], torch.zeros(5, 3).double()])).solution
        total.append((b @ solved - hot[held::2]).square().mean())
    assert misfit(x, y) == pytest.approx(float(torch.stack(total).mean()))
    assert math.isfinite(misfit(torch.zeros(10, 3), torch.randint(0, 3, (10,))))


def test_a_collapse_is_told():
    net = supernet()
    SMALL["single"]._train(
        net,
        data("train"),
        loss,
        __import__("random").Random(0),
        __import__("planish.automl.supernet.result", fromlist=["Diary"]).Diary(60, None),
    )
    told = verdict(net, {"edge0": "skip", "edge1": "none"}, data("validation"), loss, 0)
    assert told.startswith("collapsed: 2 of 2 decisions took an option with the fewest parameters")
    assert verdict(net, {"edge0": "conv3x3", "edge1": "conv3x3"}, data("validation"), loss, 0) == ""


def test_large_spaces_are_sampled():
    torch.manual_seed(0)
    graph = capture(MLP((4, 8, 8, 8, 8, 2)).eval(), (torch.randn(2, 4),), {"x": {0: "batch"}})
    widths = (0.125, 0.25, 0.5, None)
    slots = [
        Slot(str(i), tuple(map(str, widths)), tuple(w and Width(w, f"path('layers.{i}')") for w in widths))
        for i in range(4)
    ]
    points = some_points(Supernet(graph, slots), 20, 0)
    assert 15 < len(points) <= 20
    assert points == some_points(Supernet(graph, slots), 20, 0)


def test_bad_input():
    net = supernet()
    with pytest.raises(DataError, match="training"):
        SinglePath().run(net, [], data("validation"), loss)
    with pytest.raises(DataError, match="validation"):
        Gdas().run(net, data("train"), [], loss)
    with pytest.raises(DataError, match="loss is nan"):
        SinglePath(steps=2).run(net, data("train"), data("validation"), lambda m, i: loss(m, i) * torch.nan)
    for wrong in (
        lambda: SinglePath(steps=0),
        lambda: Darts(order=3),
        lambda: Sandwich(shrink=1.0),
        lambda: Gdas(finalists=0),
    ):
        with pytest.raises(OptionError):
            wrong()


def test_depth_takes_part():
    torch.manual_seed(0)

    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks, self.head = nn.ModuleList(nn.Linear(8, 8) for _ in range(3)), nn.Linear(8, 10)

        def forward(self, x):
            x = x.flatten(1)[:, :8]
            for block in self.blocks:
                x = x + block(x).relu()
            return self.head(x)

    graph = capture(Stack().eval(), (torch.randn(2, 1, 8, 8),), {"x": {0: "batch"}})
    net = Supernet(graph, [Slot("depth", (0, 1, 3), (Depth(0), Depth(1), None))])
    result = Sandwich(steps=8, middle=0).run(net, data("train"), data("validation"), loss)
    assert len(result.ranking) == 3
