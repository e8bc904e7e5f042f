"""The integer program: what the hardware computes, one operation after the other, and the definition of its numerics.

Every value is a tensor of integers; a code `c` of a value with `frac` fraction bits stands for `c * 2**-frac`. There
are no floats, no scales and no batch: a program computes one sample, and `run` takes any number of them along a leading
axis. Axes are in the order of the stream: channels last, rows of tokens one after the other. SystemVerilog equals `run`
bit for bit; the prepared graph evaluated in float64 equals it too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from planish.errors import DataError, GraphError
from planish.targets.fpga import store
from planish.targets.fpga.doors import Array, Door
from planish.targets.fpga.operations.base import WIDEST, Codes, Integers, Operation, Value
from planish.targets.fpga.operations.layout import Concat, Permute, Repeat, Reshape, Slice, Spread
from planish.targets.fpga.operations.pointwise import Add, Constant, Lookup, Requantize
from planish.targets.fpga.operations.products import Aggregate, Convolve, Embed, Linear, MatMul, Multiply
from planish.targets.fpga.operations.rounding import ROUNDINGS
from planish.targets.fpga.operations.rows import Microscale, Normalize, Pool, Reduce

__all__ = [
    "ROUNDINGS",
    "Add",
    "Aggregate",
    "Codes",
    "Concat",
    "Constant",
    "Convolve",
    "Door",
    "Embed",
    "Integers",
    "Linear",
    "Lookup",
    "MatMul",
    "Microscale",
    "Multiply",
    "Normalize",
    "Operation",
    "Permute",
    "Pool",
    "Program",
    "Reduce",
    "Repeat",
    "Requantize",
    "Reshape",
    "Slice",
    "Spread",
    "Value",
]

_AT_ONCE = 2**24
"""Numbers of the largest value that `run` makes at once; more samples are computed piece by piece."""


@dataclass(frozen=True, eq=False)
class Program:
    """Operations in an order in which each finds its inputs made.

    Attributes:
        inputs: What comes in.
        operations: What is done.
        outputs: Names of what goes out.
        structure: How the model's own arguments and results are made of these.
        doors_in: The model's tensor of each input; left out, one with the axes of the value.
        doors_out: The model's tensor of each output, likewise.

    Raises:
        GraphError: When made: a name that is missing or stands twice, a shape that does not fit, a value that may hold
            a number that its codes do not, a sum of more than 62 bits.
    """

    inputs: tuple[Value, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[str, ...]
    structure: Mapping[str, object] = field(default_factory=dict)
    doors_in: tuple[Door, ...] = ()
    doors_out: tuple[Door, ...] = ()

    def __post_init__(self) -> None:
        self.verify()
        for name, values in (("doors_in", self.inputs), ("doors_out", self.results)):
            if not getattr(self, name):
                object.__setattr__(self, name, tuple(Door(tuple(range(len(value.shape)))) for value in values))

    @cached_property
    def values(self) -> dict[str, Value]:
        """Every value by name."""
        return {value.name: value for value in [*self.inputs, *(each.output for each in self.operations)]}

    @property
    def results(self) -> tuple[Value, ...]:
        """The values that go out."""
        return tuple(self.values[name] for name in self.outputs)

    def readers(self, name: str) -> Sequence[Operation]:
        """The operations that read a value."""
        return [each for each in self.operations if name in each.inputs]

    # Numbers ---------------------------------------------------------------------------------------------------------

    def run(self, *codes: Integers) -> tuple[Integers, ...]:
        """Codes of the outputs, `(batch, *shape)`, from those of the inputs.

        Raises:
            DataError: Codes of another shape, of no integer type, or that an input cannot hold.
        """
        given = self._checked(codes)
        piece = max(1, _AT_ONCE // max(value.size for value in self.values.values()))
        parts = [
            self._outputs([x[start : start + piece] for x in given]) for start in range(0, len(given[0]) or 1, piece)
        ]
        return tuple(np.concatenate(found) for found in zip(*parts, strict=True))

    def trace(self, *codes: Integers) -> dict[str, Integers]:
        """Codes of every value."""
        given = self._checked(codes)
        known = {value.name: x for value, x in zip(self.inputs, given, strict=True)}
        for each in self.operations:
            made = each.run(*(known[name] for name in each.inputs))
            known[each.output.name] = np.broadcast_to(made, (len(given[0]), *each.output.shape))
        return known

    def _outputs(self, given: Sequence[Integers]) -> list[Integers]:
        known = {value.name: x for value, x in zip(self.inputs, given, strict=True)}
        last = {name: number for number, each in enumerate(self.operations) for name in each.inputs}
        for number, each in enumerate(self.operations):
            known[each.output.name] = each.run(*(known[name] for name in each.inputs))
            for name in each.inputs:
                if last[name] == number and name not in self.outputs:
                    known.pop(name, None)
        return [np.broadcast_to(known[value.name], (len(given[0]), *value.shape)) for value in self.results]

    def _checked(self, codes: Sequence[Integers]) -> list[Integers]:
        if len(codes) != len(self.inputs):
            raise DataError(f"the program has {len(self.inputs)} inputs, not {len(codes)}")
        arrays = [np.asarray(x) for x in codes]
        for value, x in zip(self.inputs, arrays, strict=True):
            if x.shape[1:] != value.shape or x.ndim == 0 or len(x) != len(arrays[0]):
                raise DataError(f"codes of shape {x.shape} are no batch of {value.shape}", value.name)
            if not np.issubdtype(x.dtype, np.integer):
                raise DataError(
                    f"codes are integers, not {x.dtype}", value.name, "program.encode makes codes of floats"
                )
            if x.size and not value.codes.holds(int(x.min()), int(x.max())):
                raise DataError(
                    f"codes from {x.min()} to {x.max()} are not all from {value.codes.low} to {value.codes.high}",
                    value.name,
                )
        return [x.astype(np.int64) for x in arrays]

    # Doors -----------------------------------------------------------------------------------------------------------

    def encode(self, *tensors: Array) -> tuple[Integers, ...]:
        """Codes of the inputs from the model's own tensors, rounded and saturated; integers are taken as they are.

        Raises:
            DataError: A tensor of another shape, or with NaN.
        """
        if len(tensors) != len(self.inputs):
            raise DataError(f"the model has {len(self.inputs)} inputs, not {len(tensors)}")
        doors = zip(tensors, self.inputs, self.doors_in, strict=True)
        return tuple(door.encode(np.asarray(x), value) for x, value, door in doors)

    def decode(self, *codes: Integers) -> tuple[Array, ...]:
        """The model's own results, in float64 or int64, from codes of the outputs."""
        doors = zip(codes, self.results, self.doors_out, strict=True)
        return tuple(door.decode(x, value) for x, value, door in doors)

    # Files -----------------------------------------------------------------------------------------------------------

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the program as JSON and safetensors into a folder, which is made."""
        return store.save(self, folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Program:
        """Read what `save` wrote. Nothing in it is executed.

        Raises:
            UntrustedFile: A file is damaged, or of another version.
        """
        return cls(**store.read(folder))

    # Verification ----------------------------------------------------------------------------------------------------

    def verify(self) -> None:
        """Raise a GraphError unless names, shapes and bounds fit."""
        known: dict[str, Value] = {}
        for value in self.inputs:
            if value.name in known:
                raise GraphError(f"two inputs are called {value.name!r}", value.path)
            known[value.name] = value
        for each in self.operations:
            missing = [name for name in each.inputs if name not in known]
            each.require(not missing, f"it reads {', '.join(missing)}, which nothing before it makes")
            each.require(each.output.name not in known, f"the name {each.output.name!r} is taken")
            _verify(each, tuple(known[name] for name in each.inputs))
            known[each.output.name] = each.output
        for name in self.outputs:
            if name not in known:
                raise GraphError(f"nothing makes the output {name!r}")
        if not self.outputs or not self.inputs:
            raise GraphError("a program has an input and an output")


def _verify(operation: Operation, inputs: tuple[Value, ...]) -> None:
    found = operation.shape(*inputs)
    operation.require(found == operation.output.shape, f"it makes shape {found}, not {operation.output.shape}")
    low, high = operation.bounds(*inputs)
    codes = operation.output.codes
    operation.require(
        codes.holds(low, high), f"numbers from {low} to {high} may come out; {codes.low} to {codes.high} are told"
    )
    on_the_way = operation.unclamped(*inputs) if isinstance(operation, Requantize | Normalize) else (low, high)
    widest = max(abs(low), abs(high), *map(abs, on_the_way))
    operation.require(widest < 2**WIDEST, f"{widest.bit_length()} bits come up, more than {WIDEST}")
