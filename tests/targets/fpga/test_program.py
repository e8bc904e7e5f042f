"""Operations against torch in float64 and against fractions; programs that do not fit are refused."""

from __future__ import annotations

import json
from fractions import Fraction
from math import floor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from planish.errors import DataError, GraphError, UntrustedFile
from planish.targets.fpga.program import (
    Add,
    Aggregate,
    Codes,
    Concat,
    Constant,
    Convolve,
    Door,
    Embed,
    Linear,
    Lookup,
    MatMul,
    Multiply,
    Normalize,
    Operation,
    Permute,
    Pool,
    Program,
    Reduce,
    Repeat,
    Requantize,
    Reshape,
    Slice,
    Spread,
    Value,
)
from tests.targets.fpga.programs import mlp_program, random_codes

RNG = np.random.default_rng(0)
WIDE = Codes(-(2**40), 2**40)


def value(name: str, shape: tuple[int, ...], low: int = -(2**40), high: int = 2**40, frac: int = 0) -> Value:
    return Value(name, shape, Codes(low, high, frac))


def rounded(x: Fraction, rounding: str) -> int:
    """From the definitions: nearest, ties to even; nearest, ties up; the next whole number below."""
    match rounding:
        case "even":
            return round(x)
        case "up":
            return floor(x + Fraction(1, 2))
        case _:
            return floor(x)


@given(
    st.lists(st.integers(-(2**30), 2**30), min_size=1, max_size=20),
    st.integers(0, 2**16 - 1),
    st.integers(-8, 40),
    st.sampled_from(["even", "up", "floor"]),
    st.integers(1, 16),
)
def test_requantize_is_the_fraction_rounded(numbers: list[int], by: int, shift: int, rounding: str, bits: int) -> None:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    operation = Requantize(("x",), value("y", (len(numbers),), low, high), np.asarray(by), shift, rounding)
    exact = [Fraction(x * by) * Fraction(2) ** -shift for x in numbers]
    expected = [min(max(rounded(each, rounding), low), high) for each in exact]
    assert operation.run(np.asarray([numbers]))[0].tolist() == expected


@given(
    st.lists(st.integers(-(2**12), 2**12), min_size=1, max_size=8),
    st.integers(1, 2**36),
    st.booleans(),
    st.integers(0, 6),
    st.sampled_from(["even", "up", "floor"]),
)
def test_normalize_is_its_definition(xs: list[int], v: int, root: bool, index: int, rounding: str) -> None:
    table = np.random.default_rng(index).integers(0, 255, 2 ** (index + root))
    operation = Normalize(("x", "v"), value("y", (len(xs),), -(2**15), 2**15), root, index, table, 3, rounding)
    power = v.bit_length() - 1
    place = floor((Fraction(v, 2**power) - 1) * 2**index) + ((power % 2) * 2**index if root else 0)
    gone = 3 + (power // 2 if root else power)
    exact = [Fraction(x * int(table[place]), 2**gone) for x in xs]
    expected = [min(max(rounded(each, rounding), -(2**15)), 2**15) for each in exact]
    assert operation.run(np.asarray([xs]), np.asarray([[v]]))[0].tolist() == expected


@settings(max_examples=25)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.integers(0, 2), st.data())
def test_convolutions_are_torchs(
    space: int, kernel: int, stride: int, dilation: int, padding: int, data: st.DataObject
) -> None:
    groups = data.draw(st.sampled_from([1, 2, 4]))
    x = RNG.integers(-128, 128, (2, *[7] * space, 4))
    weight = RNG.integers(-128, 128, (8, *[kernel] * space, 4 // groups))
    bias = RNG.integers(-999, 999, 8)
    around = tuple((padding, padding) for _ in range(space))
    shape = tuple((7 + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 for _ in range(space))
    made = Convolve(
        ("x",), value("y", (*shape, 8)), weight, bias, (stride,) * space, around, (dilation,) * space, groups
    )
    assert made.shape(value("x", x.shape[1:])) == (*shape, 8)
    first = [torch.from_numpy(np.moveaxis(part, -1, 1).astype(np.float64)) for part in (x, weight)]
    run = getattr(functional, f"conv{space}d")
    expected = run(*first, torch.from_numpy(bias).double(), stride, padding, dilation, groups)
    assert (made.run(x) == np.moveaxis(expected.numpy(), 1, -1)).all()


@pytest.mark.parametrize("kind", ["sum", "max"])
def test_pools_are_torchs(kind: str) -> None:
    x = RNG.integers(-99, 99, (3, 6, 7, 5))
    y = Pool(("x",), value("y", (3, 4, 5)), kind, (3, 2), (2, 2), ((1, 1), (1, 0))).run(x)
    torch_x = torch.from_numpy(np.moveaxis(x, -1, 1).astype(np.float64))
    padded = functional.pad(torch_x, (1, 0, 1, 1), value=-1e9 if kind == "max" else 0.0)
    if kind == "max":
        expected = functional.max_pool2d(padded, (3, 2), 2)
    else:
        expected = functional.avg_pool2d(padded, (3, 2), 2, divisor_override=1)
    assert (np.moveaxis(y, -1, 1) == expected.numpy()).all()


def test_products_beyond_float64_stay_exact() -> None:
    x, weight = np.full((1, 4), 2**27 - 1), np.full((1, 4), 2**27 - 3)
    assert Linear(("x",), value("y", (1,), 0, 2**61), weight).run(x).tolist() == [[4 * (2**27 - 1) * (2**27 - 3)]]


X = value("x", (4, 6), -9, 9)
EACH: list[tuple[Operation, tuple[Value, ...]]] = [
    (Linear(("x",), value("y", (4, 3)), RNG.integers(-7, 8, (3, 6)), RNG.integers(-99, 99, 3)), (X,)),
    (Convolve(("x",), value("y", (4, 2)), RNG.integers(-7, 8, (2, 3, 6)), None, (1,), ((1, 1),), (1,)), (X,)),
    (Add(("x", "b"), value("y", (4, 6), frac=2), (2, 0), (1, -1)), (X, value("b", (6,), -3, 50, 2))),
    (Multiply(("x", "b"), value("y", (4, 6))), (X, value("b", (4, 1), -3, 50))),
    (Multiply(("x", "x"), value("y", (4, 6))), (X, X)),
    (MatMul(("x", "b"), value("y", (4, 5))), (X, value("b", (6, 5), -3, 50))),
    (MatMul(("x", "b"), value("y", (4, 5)), True), (X, value("b", (5, 6), -3, 50))),
    (Lookup(("x",), value("y", (4, 6)), RNG.integers(-99, 99, 19), -9), (X,)),
    (Reduce(("x",), value("y", (4, 1)), "sum"), (X,)),
    (Reduce(("x",), value("y", (4, 1)), "max"), (X,)),
    (Pool(("x",), value("y", (2, 6)), "sum", (2,), (2,), ((0, 0),)), (X,)),
    (Aggregate(("x",), value("y", (3, 6)), RNG.integers(-2, 3, (3, 4))), (X,)),
    (Embed(("i",), value("y", (4, 3)), RNG.integers(-99, 99, (10, 3))), (value("i", (4,), 0, 9),)),
    (Permute(("x",), value("y", (6, 4)), (1, 0)), (X,)),
    (Reshape(("x",), value("y", (2, 12))), (X,)),
    (Slice(("x",), value("y", (4, 3)), 1, 0, 6, 2), (X,)),
    (Concat(("x", "b"), value("y", (4, 7)), 1), (X, value("b", (4, 1), 0, 50))),
    (Spread(("x",), value("y", (7, 6)), (2,)), (X,)),
    (Repeat(("x",), value("y", (12, 6)), (3,)), (X,)),
]


@pytest.mark.parametrize(("operation", "inputs"), EACH, ids=lambda each: type(each).__name__)
def test_what_comes_out_has_the_shape_and_the_bounds_that_are_told(
    operation: Operation, inputs: tuple[Value, ...]
) -> None:
    assert operation.shape(*inputs) == operation.output.shape
    low, high = operation.bounds(*inputs)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        ends = [rng.choice([each.codes.low, each.codes.high, 0], (50, *each.shape)) for each in inputs]
        ends = [ends[0]] * len(ends) if len(set(operation.inputs)) < len(inputs) else ends
        made = operation.run(*ends)
        assert made.shape == (50, *operation.output.shape)
        assert low <= made.min() <= made.max() <= high


@pytest.mark.parametrize(
    ("codes", "bits"), [((0, 1), 1), ((0, 255), 8), ((-1, 0), 1), ((-128, 127), 8), ((-129, 0), 9)]
)
def test_words_are_as_wide_as_their_numbers(codes: tuple[int, int], bits: int) -> None:
    assert Codes(*codes).bits == bits


def test_a_program_is_kept(tmp_path: Path) -> None:
    program = mlp_program()
    program.save(tmp_path / "program")
    again = Program.load(tmp_path / "program")
    codes = random_codes(program, 100)
    assert all((a == b).all() for a, b in zip(program.run(*codes), again.run(*codes), strict=True))
    assert again.values == program.values
    assert (again.doors_in, again.structure) == (program.doors_in, program.structure)


@pytest.mark.parametrize("damage", ["json", "kind", "numbers", "version", "bounds"])
def test_a_damaged_program_is_refused(tmp_path: Path, damage: str) -> None:
    mlp_program().save(tmp_path)
    text = tmp_path / "program.json"
    content = json.loads(text.read_text())
    match damage:
        case "json":
            text.write_text("{")
        case "numbers":
            (tmp_path / "program.safetensors").write_bytes(b"no")
        case "kind":
            content["operations"][0]["kind"] = "__import__"
        case "version":
            content["version"] = 0
        case _:
            content["operations"][0]["output"]["codes"]["high"] = 1
    if damage in ("kind", "version", "bounds"):
        text.write_text(json.dumps(content))
    with pytest.raises((UntrustedFile, GraphError)):
        Program.load(tmp_path)


def test_many_samples_are_computed_in_pieces_and_one_by_one_alike() -> None:
    program = mlp_program()
    codes = random_codes(program, 64)
    whole = program.run(*codes)[0]
    assert all((program.run(codes[0][i : i + 1])[0] == whole[i : i + 1]).all() for i in range(0, 64, 9))
    assert (program.trace(*codes)[program.outputs[0]] == whole).all()
    assert program.run(codes[0][:0])[0].shape == (0, 5)


def test_doors_take_the_axes_of_the_model() -> None:
    x = Value("x", (2, 3, 1), Codes(-8, 7, 1))
    program = Program((x,), (Reshape(("x",), Value("y", (6,), Codes(-8, 7, 1))),), ("y",), {}, (Door((1, 2, 0)),))
    image = np.arange(12.0).reshape(2, 1, 2, 3) / 4
    (codes,) = program.encode(image)
    assert codes[0].reshape(-1).tolist() == [0, 0, 1, 2, 2, 2]
    assert program.decode(*program.run(codes))[0].tolist()[0] == [0, 0, 0.5, 1.0, 1.0, 1.0]
    with pytest.raises(DataError, match="shape"):
        program.encode(image.transpose(0, 1, 3, 2))
    with pytest.raises(DataError, match="NaN"):
        program.encode(image * np.nan)
    with pytest.raises(DataError, match="not all from"):
        program.run(codes + 100)
    with pytest.raises(DataError, match="no batch"):
        program.run(codes[0])


def _program(*operations: Operation, out: str = "y") -> Program:
    return Program((value("x", (6,), -9, 9),), operations, (out,))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Codes(1, 0), "no code"),
        (lambda: _program(Reshape(("z",), value("y", (6,)))), "nothing before it makes"),
        (lambda: _program(Reshape(("x",), value("x", (6,))), out="x"), "taken"),
        (lambda: _program(Reshape(("x",), value("y", (5,)))), "6 numbers"),
        (lambda: _program(Reshape(("x",), value("y", (6,), -9, 8))), "may come out"),
        (lambda: _program(Reshape(("x",), value("y", (6,))), out="z"), "nothing makes"),
        (lambda: _program(Linear(("x",), value("y", (2,)), np.ones((2, 5)))), "rows of 6"),
        (lambda: _program(Linear(("x",), value("y", (3,)), np.ones((2, 6)))), "it makes shape"),
        (lambda: Linear(("x",), value("y", (2,)), np.ones((2, 5)), np.ones(3)), "bias"),
        (lambda: _program(Lookup(("x",), value("y", (6,)), np.zeros(19), 0)), "begins at"),
        (lambda: _program(Lookup(("x",), value("y", (6,)), np.zeros(9), -9)), "9 entries"),
        (lambda: Requantize(("x",), value("y", (6,)), np.asarray(-1), 0), "negative"),
        (lambda: Requantize(("x",), value("y", (6,)), np.ones(5), 0), "multiplier"),
        (lambda: Requantize(("x",), value("y", (6,)), np.ones(6), 0, "away"), "rounding"),
        (lambda: _program(Requantize(("x",), value("y", (6,)), np.asarray(1), -62)), "bits come up"),
        (lambda: _program(Add(("x",), value("y", (6,)), (1,), (1,))), "fraction bits"),
        (lambda: _program(Embed(("x",), value("y", (6, 2)), np.ones((3, 2)))), "chooses rows"),
        (lambda: _program(Permute(("x",), value("y", (6,)), (1,))), "axes"),
        (lambda: Slice(("x",), value("y", (6,)), 0, 3, 3), "nothing"),
        (lambda: Pool(("x",), value("y", (6,)), "mean", (1,), (1,), ((0, 0),)), "neither"),
        (lambda: Pool(("x",), value("y", (6,)), "max", (1,), (1,), ((1, 0),)), "nothing in them"),
        (lambda: Constant((), value("y", (6,)), np.zeros(5)), "not the output's"),
        (lambda: Normalize(("x", "x"), value("y", (6,)), True, 2, np.ones(4), 0), "entries"),
    ],
)
def test_what_does_not_fit_is_refused(make: object, says: str) -> None:
    with pytest.raises(GraphError, match=says):
        make()  # type: ignore[operator]  # one of those above
