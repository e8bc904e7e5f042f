"""Shared sums of constant matrices equal the product with the matrix."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from planish.targets.fpga.operations.rounding import shift_right
from planish.targets.fpga.unrolled.builder import Builder
from planish.targets.fpga.unrolled.circuit import Circuit, Table, Word, width
from planish.targets.fpga.unrolled.share import Row, digits, interval_of, rows_of, share

matrices = st.tuples(st.integers(1, 6), st.integers(1, 7), st.integers(1, 200)).flatmap(
    lambda each: arrays(np.int64, each[:2], elements=st.integers(-each[2], each[2]))
)
intervals = st.tuples(st.integers(-40, 40), st.integers(0, 60)).map(lambda each: (each[0], sum(each)))


@given(st.integers(-(10**6), 10**6))
def test_canonical_signed_digits(number: int) -> None:
    found = digits(number)
    shifts = [shift for shift, _ in found]
    assert sum(sign << shift if sign > 0 else -(1 << shift) for shift, sign in found) == number
    assert all(later - earlier > 1 for earlier, later in pairwise(shifts))


@given(matrices, intervals, st.sampled_from([0.6, 1.15, 3.0]))
@settings(max_examples=60)
def test_rows_of_shared_numbers_equal_the_product(
    matrix: np.ndarray, interval: tuple[int, int], per_bit: float
) -> None:
    known = [
        (interval, [int(column == place) for place in range(matrix.shape[1])]) for column in range(matrix.shape[1])
    ]
    pairs, rows, found = share(rows_of(matrix), [interval] * matrix.shape[1], per_bit)
    vectors = [np.array(vector) for _, vector in known]
    for pair in pairs:
        first, second = vectors[pair.first], vectors[pair.second] << pair.shift
        vectors.append(second + pair.sign * first if pair.first == pair.second else first + pair.sign * second)
    assert len(found) == len(vectors)

    def made(row: Row) -> np.ndarray:
        return sum(
            (sign * (vectors[number] << shift) for (shift, number), sign in row.items()), np.zeros_like(matrix[0])
        )

    assert np.array_equal(np.stack([made(row) for row in rows]), matrix)


def test_what_several_rows_have_in_common_is_made_once() -> None:
    pairs, rows, found = share(rows_of(np.array([[1, 1, 0], [2, 2, 1], [-1, -1, 1], [4, 4, 3]])), [(0, 15)] * 3)
    assert (pairs[0].first, pairs[0].second, pairs[0].shift, pairs[0].sign) == (0, 1, 0, 1)
    assert found[3] == interval_of(pairs[0], found) == (0, 30)
    assert [row.get((shift, 3)) for row, shift in zip(rows, (0, 1, 0, 2), strict=True)] == [1, 1, -1, 1]


@given(matrices, st.lists(intervals, min_size=7, max_size=7), st.integers(-300, 300), st.integers(0, 2**31))
@settings(max_examples=60)
def test_the_adder_graph_equals_the_product(
    matrix: np.ndarray, ranges: list[tuple[int, int]], constant: int, seed: int
) -> None:
    rng, builder = np.random.default_rng(seed), Builder()
    ranges = ranges[: matrix.shape[1]]
    words = [builder.input("x", lane, *each) for lane, each in enumerate(ranges)]
    totals = builder.linear(words, rows_of(matrix), [constant] * len(matrix), [f"x[{n}]" for n in range(len(words))])
    circuit = Circuit(tuple(builder.nodes), {"y": tuple(totals)})
    ends = np.array([[low for low, _ in ranges], [high for _, high in ranges]])
    codes = np.vstack([ends, rng.integers(ends[0], ends[1] + 1, (50, len(ranges)))])
    masked = codes & np.array([(1 << width(*each)) - 1 for each in ranges])
    assert np.array_equal(circuit.run({"x": masked})["y"], codes @ matrix.T + constant)


@given(
    intervals, st.integers(-2, 5), st.sampled_from(["even", "up", "floor"]), st.sampled_from([(0, 15), (-8, 7), (3, 9)])
)
@settings(max_examples=80)
def test_shifts_round_and_saturate(
    interval: tuple[int, int], shift: int, rounding: str, bounds: tuple[int, int]
) -> None:
    builder = Builder()
    x = np.arange(interval[0], interval[1] + 1)
    half = 1 << shift - 1 if shift > 0 and rounding != "floor" else 0
    word = builder.input("x", 0, *interval)
    raised = builder.linear([word], rows_of(np.array([[1]])), [half], ["x"])[0]
    kept = builder.shifted(raised, shift, rounding, *bounds)
    made = Circuit(tuple(builder.nodes), {"y": (kept,)}).run({"x": x[:, None] & (1 << width(*interval)) - 1})["y"]
    assert np.array_equal(made[:, 0], np.clip(shift_right(x, shift, rounding), *bounds))


@given(st.tuples(st.integers(-9, 0), st.integers(0, 9)), st.data())
@settings(max_examples=30)
def test_tables(interval: tuple[int, int], data: st.DataObject) -> None:
    low, high = interval
    table = data.draw(st.lists(st.integers(-20, 20), min_size=high - low + 1, max_size=high - low + 1))
    builder = Builder()
    word = builder.lookup(builder.input("x", 0, low, high), table, low)
    made = Circuit(tuple(builder.nodes), {"y": (word,)}).run(
        {"x": np.arange(low, high + 1)[:, None] & (1 << width(low, high)) - 1}
    )
    assert made["y"][:, 0].tolist() == table


@pytest.mark.parametrize("factor", [3, 5, 7, -7])
def test_small_numbers_are_multiplied_by_tables(factor: int) -> None:
    builder = Builder()
    word = builder.input("x", 0, 0, 15)
    builder.linear([word], rows_of(np.array([[factor]] * 9)), [0] * 9, ["x"])
    assert any(isinstance(node, Table) for node in builder.nodes)


def test_a_constant_word_needs_no_wires() -> None:
    assert Word.constant(-3).low == -3
    assert Circuit((), {"y": (Word.constant(-3),)}).run({"x": np.zeros((2, 1), np.int64)})["y"].tolist() == [[-3], [-3]]
