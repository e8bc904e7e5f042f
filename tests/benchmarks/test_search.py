"""The tables that searches are compared on."""

from __future__ import annotations

import io
import itertools
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.search import analog, cells, graphs, structure
from benchmarks.search.compare import hypervolume, ratios
from benchmarks.search.precision import error, linears, perceptron, rounded, sweep
from benchmarks.search.tables import Table
from optuna._hypervolume import compute_hypervolume
from torch import nn
from torch.nn import functional

from planish.formats import get
from planish.models.digits import digits
from planish.models.mlp import MLP


def test_prefixes_change_nothing() -> None:
    """Each point of a sweep is the network with these bits."""
    torch.manual_seed(0)
    model, x, labels = MLP((6, 8, 5, 3)), torch.randn(40, 6), torch.randint(3, (40,))
    bits = (2, 4, 8)
    wrong, sizes = sweep(linears(model, lambda _, w: [rounded(w, b) for b in bits]), x, error(labels))
    for row, chosen in enumerate(itertools.product(bits, repeat=3)):
        y, size = x, 0
        for place, (layer, width) in enumerate(zip(model.layers, chosen, strict=True)):
            assert isinstance(layer, nn.Linear)
            y = functional.linear(y, get(f"int{width}").cast(layer.weight.detach()), layer.bias)
            y = y.relu() if place < 2 else y
            size += width * layer.weight.numel()
        assert wrong[row] == pytest.approx(1 - float((y.argmax(1) == labels).float().mean()))
        assert sizes[row] == size


def points_of(table: Table, count: int = 6) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [{name: options[rng.integers(len(options))] for name, options in table.space.items()} for _ in range(count)]


@pytest.mark.long
def test_widths_are_of_networks_without_these_neurons() -> None:
    table, model = structure.widths(), perceptron((64, *(structure.HIDDEN,) * 5, 10))
    images, labels = digits("evaluation")
    tensors = [(layer.weight.detach(), layer.bias.detach()) for layer in model.layers]  # type: ignore[union-attr,operator]
    for point in points_of(table):
        y, rows, macs = images, torch.arange(64), 0
        for place, (weight, bias) in enumerate(tensors):
            left = torch.arange(10)
            if place < 5:
                strength = weight.norm(dim=1) * tensors[place + 1][0].norm(dim=0)
                left = strength.topk(point[f"layer {place}"]).indices
            y = functional.linear(y, weight[left][:, rows], bias[left])
            y = y.relu() if place < 5 else y
            macs, rows = macs + len(left) * len(rows), left
        row = table.row(point)
        assert table.objectives["error"][row] == pytest.approx(error(labels)(y), abs=0.0021)  # sums in another order
        assert table.objectives["MACs"][row] == macs


@pytest.mark.long
def test_ranks_are_of_networks_with_these_factors() -> None:
    table, model = structure.ranks(), perceptron((64, 128, 128, 128, 10))
    images, labels = digits("evaluation")
    for point in points_of(table):
        y, bits, count = images, 0.0, 0
        for place, layer in enumerate(model.layers):
            assert isinstance(layer, nn.Linear)
            width, share = point.get(f"layer {place} bits", 8), point.get(f"layer {place} rank", 1.0)
            weight, cast = layer.weight.detach(), get(f"int{width}").cast
            rank = round(share * min(weight.shape))
            if share < 1:
                u, s, v = torch.linalg.svd(weight, full_matrices=False)
                factors = cast(u[:, :rank] * s[:rank].sqrt()), cast(s[:rank, None].sqrt() * v[:rank])
                y = functional.linear(functional.linear(y, factors[1]), factors[0], layer.bias)
                stored = rank * sum(weight.shape)
            else:
                y, stored = functional.linear(y, cast(weight), layer.bias), weight.numel()
            y = y.relu() if place < 3 else y
            bits += width * stored
            count += weight.numel()
        row = table.row(point)
        assert table.objectives["error"][row] == pytest.approx(error(labels)(y), abs=0.0021)
        assert table.objectives["bits"][row] == pytest.approx(bits / count)


def test_rows_are_in_order() -> None:
    space = {"a": "xyz", "b": (1, 2), "c": (0.5, 1.0, 2.0)}
    table = Table("t", space, {}, np.arange(18.0))
    rows = [table.row(dict(zip(space, chosen, strict=True))) for chosen in itertools.product(*space.values())]
    assert rows == list(range(18))
    assert table.target() == 0.0
    assert table.target(0.2) == 3.0


def test_hypervolume_is_optunas() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        losses, reference = rng.integers(0, 6, (8, 2)).astype(float), (5.0, 4.0)
        inside = losses[(losses < np.array(reference)).all(1)]
        theirs = compute_hypervolume(inside, np.array(reference)) if len(inside) else 0.0
        assert hypervolume(losses, reference) == pytest.approx(theirs)


def test_ratios_are_of_medians_by_table() -> None:
    def runs(*reached: int) -> list[dict[str, int]]:
        return [{"reached": count} for count in reached]

    found = ratios(
        {"t": {"a": runs(10, 20, 30), "b": runs(40, 40, 40)}, "u": {"a": runs(8), "b": runs(1)}}, ["t", "u"], "a", "b"
    )
    assert found["tables"]["t"][0] == 0.5
    assert found["mean"][0] == pytest.approx(2.0)


@pytest.mark.parametrize("reader", [graphs.Numbers, analog.Rows])
def test_tables_of_others_cannot_run_code(reader: type[pickle.Unpickler]) -> None:
    with pytest.raises(pickle.UnpicklingError, match="does not belong"):
        reader(io.BytesIO(pickle.dumps(print))).load()


def test_kept_cells() -> None:
    rows = cells.table()
    assert list(rows) == [cells.key(point) for point in cells.points()]
    assert rows["none none none none"].test[0] < 0.2
    network = cells.Network(cells.points()[333]).eval()
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    named = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)]
    sides = [4 if name.startswith(("second", "transition")) else 8 for name, _ in named]
    convolutions = sum(layer.weight.numel() * side**2 for (_, layer), side in zip(named, sides, strict=True))
    assert cells.macs(cells.points()[333]) == convolutions + network.head.weight.numel()
