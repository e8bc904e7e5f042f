"""Learned codebooks: found by k-means, in one parameter, stored to the byte."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from planish.compress import Quantize
from planish.formats import Codes, get
from planish.formats.facts import bits_per_value
from planish.formats.loss import loss
from planish.formats.lut import fit_codebooks, from_rows, to_rows
from planish.graph import Graph
from tests.compress.models import error, mlp


def least_error(x: np.ndarray, count: int, weight: np.ndarray) -> float:
    """The least squared error of any codebook, by dynamic programming over all stretches."""
    order = np.argsort(x)
    x, weight = x[order], weight[order]
    mass, first, second = (np.concatenate([[0.0], np.cumsum(weight * x**power)]) for power in (0, 1, 2))

    def alone(start: np.ndarray, stop: int) -> np.ndarray:
        held = mass[stop] - mass[start]
        return second[stop] - second[start] - (first[stop] - first[start]) ** 2 / np.maximum(held, 1e-300)

    best = np.array([0.0] + [math.inf] * len(x))
    for _ in range(count):
        best = np.array([0.0] + [(best[:n] + alone(np.arange(n), n)).min() for n in range(1, len(x) + 1)])
    return float(best[-1])


@pytest.mark.parametrize("kind", ["normal", "laplace", "outliers"])
@pytest.mark.parametrize("count", [4, 16])
def test_k_means_is_near_the_optimum(count: int, kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(300, generator=generator).double(), torch.rand(300, generator=generator).double()
    x = {"normal": x, "laplace": x * x.abs(), "outliers": torch.where(weight > 0.97, x * 10, x)}[kind]
    for counts in (torch.ones(300, dtype=torch.float64), weight):
        book = fit_codebooks(x, x.amin(), x.amax(), get("lut4@tensor").block, count, counts)
        found = float(((x.unsqueeze(1) - book).square().amin(1) * counts).sum())
        assert found <= (3.0 if kind == "outliers" else 1.35) * least_error(x.numpy(), count, counts.numpy())


def test_normal_numbers_lose_what_lloyd_and_max_say() -> None:
    """Max, "Quantizing for Minimum Distortion" (1960), table I: 0.1175 and 0.009497 for 4 and 16 levels."""
    x = torch.randn(1 << 18, generator=torch.Generator().manual_seed(0))
    for text, distortion in (("lut2", 0.1175), ("lut4", 0.009497)):
        assert loss(x, text).sqnr == pytest.approx(-10 * math.log10(distortion), abs=0.03)


@given(st.lists(st.floats(-(2.0**60), 2.0**60, width=32), min_size=1, max_size=4), st.integers(1, 30))
@settings(max_examples=50)
def test_few_numbers_are_kept_exactly(numbers: list[float], times: int) -> None:
    x = torch.tensor(numbers * times)
    assert torch.equal(get("lut2").cast(x), x)


@pytest.mark.parametrize(
    "text", ["int8@g8", "int8@tile3x4", "int8@channel1", "int8@token", "int8@tensor", "int8@g8axis0"]
)
def test_rows_are_blocks(text: str) -> None:
    block, x = get(text).block, torch.randn(10, 21)
    rows = to_rows(x, block)
    assert torch.equal(from_rows(rows, x.shape, block), x)
    torch.testing.assert_close(rows.sum(1), block.sum(x).flatten())


def test_codebooks_count_in_bytes_and_bits() -> None:
    x = torch.randn(8, 64)
    form = get("lut4@channel0*float16")
    assert [name for name, _ in form.levels] == ["codebook"]
    assert form.level_shapes(x.shape) == ((8, 1, 16),)
    assert form.nbytes(x.shape) == 8 * 64 // 2 + 8 * 16 * 2
    assert {name: data.numel() for name, data in form.pack(x).items()} == {"codes": 256, "codebook": 256}
    assert bits_per_value(get("lut3@g128*float16")) == 3 + 8 * 16 / 128
    double = get("lut4@tensor*(int8@tensor*float16)")
    assert [name for name, _ in double.levels] == ["codebook", "codebook.scale"]
    assert double.nbytes(x.shape) == 256 + 16 + 2


def test_one_codebook_may_serve_all_blocks_and_stand_in_any_order() -> None:
    x, book = torch.randn(4, 32), torch.tensor([1.0, -2.0, 0.0, -0.5])
    want = book[(x.unsqueeze(-1) - book).abs().argmin(-1)]
    for text in ("lut2@tensor", "lut2@channel0", "lut2@g8"):
        assert torch.equal(get(text).cast(x, (book,)), want)
        codes = get(text).encode(x, (book,))
        assert torch.equal(codes.decode(), want)
        assert torch.equal(book[codes.codes.long()], want)


def test_a_range_gives_even_steps() -> None:
    low, high = torch.tensor(-1.0), torch.tensor(2.0)
    (book,) = get("lut2~absmax").parameters(low=low, high=high)
    torch.testing.assert_close(book, torch.tensor([-1.0, 0.0, 1.0, 2.0]))


@pytest.mark.parametrize("weights", ["lut4", "lut4@tensor", "lut3@g8*float16"])
def test_weights_of_a_model_are_clustered_saved_and_exported(weights: str, tmp_path) -> None:
    graph = mlp()
    small = Quantize(weights=weights)(graph)
    assert "0.weight__codebook" in small.tensors
    weight = graph.tensors["0.weight"].detach()
    form = next(node.format for node in small.nodes if node.op == "cast")
    assert torch.equal(small.base_state_dict()["0.weight"], form.cast(weight, (small.tensors["0.weight__codebook"],)))
    assert len(small.base_state_dict()["0.weight"][0, :8].unique()) <= 2**form.bits
    assert error(graph, small) < 0.2
    small.save(tmp_path / "m.planish")
    x = torch.randn(4, 16)
    back = Graph.load(tmp_path / "m.planish")
    assert torch.equal(back(x), small(x))
    program = torch.export.export(small.module(), (x,), strict=False)
    assert torch.equal(program.module()(x), small(x))


def test_a_clustered_model_trains_its_codebooks() -> None:
    module = Quantize(weights="lut2@tensor")(mlp()).module()
    books = {name: p for name, p in (*module.named_parameters(), *module.named_buffers()) if name.endswith("codebook")}
    assert books
    for book in books.values():
        book.requires_grad_()
    module(torch.randn(4, 16)).square().sum().backward()
    assert all(book.grad is not None and book.grad.any() for book in books.values())


def test_unpacks_what_it_packed() -> None:
    x, form = torch.randn(3, 40), get("lut3@g16*(int8@g4*float16)")
    codes = form.encode(x)
    back = Codes.unpack(codes.pack(), form, x.shape)
    assert torch.equal(back.decode(), form.cast(x))
