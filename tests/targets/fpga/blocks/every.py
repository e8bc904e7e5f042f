"""A design of every block of the library, small ones beside each other, none of whose sizes divide another."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from planish.targets.fpga.blocks.base import Fold
from planish.targets.fpga.design import Design
from planish.targets.fpga.program import (
    Add,
    Aggregate,
    Codes,
    Concat,
    Constant,
    Convolve,
    Embed,
    Integers,
    Linear,
    Lookup,
    MatMul,
    Microscale,
    Multiply,
    Normalize,
    Operation,
    Permute,
    Pool,
    Program,
    Reduce,
    Repeat,
    Requantize,
    Slice,
    Spread,
    Value,
)
from planish.targets.fpga.streamed.emit import design
from planish.targets.fpga.streamed.netlist import block_of, connect
from tests.targets.fpga.blocks.harness import random_codes, value

WIDE = Codes(-(1 << 50), 1 << 50)


@cache
def program() -> Program:
    """What is computed: values that start with `x` come in, and what nobody reads goes out."""
    rng = np.random.default_rng(0)
    made: dict[str, Value] = {}
    operations: list[Operation] = []

    def comes(name: str, shape: tuple[int, ...], bits: int, signed: bool = True) -> None:
        made[f"x_{name}"] = value(f"x_{name}", shape, bits, signed)

    def put(form: type[Operation], name: str, sources: str, shape: tuple[int, ...], **fields: Any) -> None:
        inputs = tuple(sources.split())
        codes = fields.pop("codes", None)
        if codes is None:
            low, high = form(inputs, Value(name, shape, WIDE), **fields).bounds(*(made[each] for each in inputs))
            codes = Codes(low, high)
        made[name] = Value(name, shape, codes)
        operations.append(form(inputs, made[name], **fields))

    def numbers(*shape: int, top: int = 7) -> Integers:
        return rng.integers(-top, top + 1, shape)

    comes("linear", (3, 7), 6)
    put(Linear, "shared", "x_linear", (3, 5), weight=numbers(5, 7, top=31), bias=numbers(5))
    put(Requantize, "rounded", "shared", (3, 5), multiplier=np.array(5), shift=7, codes=Codes(-8, 7))
    comes("signs", (9,), 5)
    put(Linear, "signs", "x_signs", (4,), weight=np.sign(numbers(4, 9)), bias=None)
    comes("channels", (2, 7), 19)
    put(
        Requantize, "channels", "x_channels", (2, 7), multiplier=abs(numbers(7, top=900)) + 1, shift=14,
        codes=Codes(0, 63),
    )  # fmt: skip
    comes("table", (2, 5), 5)
    put(Lookup, "table", "x_table", (2, 5), table=numbers(32, top=99), base=-16)
    comes("convolve", (5, 4, 3), 4)
    same = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1)}
    put(Convolve, "convolved", "x_convolve", (5, 4, 5), weight=numbers(5, 3, 3, 3), bias=numbers(5), **same)
    comes("depthwise", (5, 4, 3), 4)
    put(
        Convolve, "each_channel", "x_depthwise", (5, 4, 3), weight=numbers(3, 3, 3, 1), bias=None, groups=3, **same
    )  # fmt: skip
    comes("pool", (5, 3), 6)
    put(Pool, "pooled", "x_pool", (2, 3), kind="max", kernel=(3,), stride=(2,), padding=((0, 0),))
    comes("first", (3, 5), 6)
    comes("second", (5,), 7, signed=False)
    put(Multiply, "product", "x_first x_second", (3, 5))
    put(Constant, "position", "", (3, 5), value=numbers(3, 5, top=50))
    put(Add, "sum", "product position", (3, 5), shifts=(0, 0), signs=(1, -1))
    comes("query", (3, 5), 6)
    comes("key", (4, 5), 5)
    put(MatMul, "scores", "x_query x_key", (3, 4), transposed=True)
    comes("row", (3, 5), 8)
    comes("variance", (3, 1), 12, signed=False)
    table = np.sort(rng.integers(128, 256, 32))[::-1]
    put(
        Normalize, "normed", "x_row x_variance", (3, 5), root=True, index=4, table=table, shift=9,
        codes=Codes(-32, 31),
    )  # fmt: skip
    comes("run", (3, 5), 11)
    put(Microscale, "scaled", "x_run", (3, 5), group=2, low=-8, high=7)
    comes("most", (3, 5), 8)
    put(Reduce, "largest", "x_most", (3, 1), kind="max")
    put(Reduce, "total", "x_most", (3, 1), kind="sum")
    comes("permute", (3, 2, 5), 5)
    put(Permute, "turned", "x_permute", (5, 2, 3), axes=(2, 1, 0), codes=made["x_permute"].codes)
    comes("word", (3,), 3, signed=False)
    put(Embed, "vector", "x_word", (3, 5), table=numbers(8, 5))
    comes("nodes", (4, 5), 5)
    put(Aggregate, "heard", "x_nodes", (3, 5), matrix=numbers(3, 4) * (rng.random((3, 4)) < 0.6))
    comes("slice", (5, 3), 5)
    put(Slice, "cut", "x_slice", (3, 3), axis=0, start=1, stop=4, codes=made["x_slice"].codes)
    comes("top", (2, 3), 5)
    comes("bottom", (3, 3), 5)
    put(Concat, "joined", "x_top x_bottom", (5, 3), axis=0, codes=made["x_top"].codes)
    comes("spread", (3, 2), 5)
    put(Spread, "far", "x_spread", (5, 2), stride=(2,), codes=made["x_spread"].codes)
    comes("repeat", (3, 2), 5)
    put(Repeat, "again", "x_repeat", (6, 2), times=(2,), codes=made["x_repeat"].codes)
    read = {name for operation in operations for name in operation.inputs}
    inputs = tuple(each for name, each in made.items() if name.startswith("x_"))
    return Program(inputs, tuple(operations), tuple(each for each in made if each not in read))


@cache
def every() -> Design:
    """The design, with a FIFO before the rounding."""
    whole = program()
    folds = {}
    for number, operation in enumerate(whole.operations):
        inputs = tuple(whole.values[name] for name in operation.inputs)
        found = block_of(operation).folds(operation, inputs)
        few = min(found, key=lambda each: abs(each.simd * each.pe - 6))
        folds[operation.output.name] = Fold(few.simd, few.pe, dsp=number % 3 != 2)
    folds |= {"shared": Fold(3, 2), "rounded": Fold(3, 3)}  # so that lanes are converted between them
    return design(connect(whole, folds, {"rounded.in": 3}))


def samples(count: int, seed: int) -> tuple[list[Integers], tuple[Integers, ...]]:
    """Codes that come in, and those that must come out, `(count, *shape)` each."""
    whole, rng = program(), np.random.default_rng(seed)
    given = [random_codes(each, count, rng) for each in whole.inputs]
    return given, whole.run(*given)
