"""The tables that searches are compared on."""

from __future__ import annotations

import io
import itertools
import pickle

import numpy as np
import pytest
import torch
from benchmarks.search import analog, cells, graphs
from benchmarks.search.compare import hypervolume, ratios
from benchmarks.search.precision import error, linears, rounded, sweep
from benchmarks.search.tables import Table
from optuna._hypervolume import compute_hypervolume
from torch import nn
from torch.nn import functional

from planish.formats import get
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
