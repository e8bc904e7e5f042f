"""Prepare a quantized graph for hardware: every value in fixed point, every nonlinearity a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from planish.errors import GraphError, OptionError
from planish.graph import Data, Graph, Pass, Progress, Step
from planish.rewrite import Canonicalize
from planish.targets.base import Unsupported
from planish.targets.fpga.preparing.calibrate import choose, settle
from planish.targets.fpga.preparing.context import Options, Preparation
from planish.targets.fpga.preparing.neighbors import as_products
from planish.targets.fpga.preparing.walk import walk

Rounding = Literal["even", "halfup", "down"]


@dataclass(frozen=True)
class Prepare(Pass):
    """Give every value between operations a fixed-point format, so that the graph can be lowered to integers.

    The weights are quantized already, to integers with a scale for each output channel or for the tensor, to blocks
    whose scales are powers of two, or in fixed point. Scales go behind the sums as fixed-point multipliers, batch norms
    with them. Softmax, attention, norms, means and activation functions become sums, products and tables in front of
    casts; fraction bits are those of least squared error on the calibration data. Casts to blocks of integers that
    share an exponent (MXINT) stay, behind fixed point of eight bits more. In float64 what comes out computes the
    numbers of the integer program, bit for bit, and it trains like any other graph.

    Attributes:
        bits: Of values that layers read and that no cast of the user's gives a number of bits.
        wide: Of what is added, and of what goes out; left out, four more than `bits`.
        table: Of what functions, softmax and norms read; left out, two more than `bits`. A table has an entry for each
            code.
        index: Leading bits of a number that is divided by.
        multiplier: Of the multipliers behind sums, 2 to 16.
        rounding: Of values: half to even, half up, or down.
    """

    bits: int = 8
    wide: int | None = None
    table: int | None = None
    index: int = 6
    multiplier: int = 16
    rounding: Rounding = "even"

    def __post_init__(self) -> None:
        for name, most in (("bits", 16), ("wide", 24), ("table", 16)):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= most:
                raise OptionError(f"{name} is from 1 to {most}, not {value}", name)
        if not 1 <= self.index <= 12:
            raise OptionError(f"1 to 12 leading bits are looked at, not {self.index}", "index")
        if not 2 <= self.multiplier <= 16:
            raise OptionError(f"a multiplier has 2 to 16 bits, not {self.multiplier}", "multiplier")
        if self.rounding not in get_args(Rounding):
            raise OptionError(
                f"unknown rounding {self.rounding!r}", "rounding", f"one of {', '.join(get_args(Rounding))}"
            )

    def plan(self, graph: Graph) -> list[Step]:
        """One step for each value that gets a format."""
        preparation, prepared = self._prepared(graph)
        _refuse(preparation.refused)
        found = [prepared.node(name) for name in preparation.wishes]
        return [Step(node.path, node.name, f"in fixed point of {preparation.wishes[node.name]} bits") for node in found]

    def draft(self, graph: Graph) -> Graph:
        """The graph with its casts, their fraction bits aside."""
        preparation, prepared = self._prepared(graph)
        _refuse(preparation.refused)
        return settle(prepared, preparation.small)

    def apply(self, graph: Graph, data: Data | None, progress: Progress) -> Graph:
        """The graph in fixed point.

        Raises:
            GraphError: A step has no integer form; names the first by its module path, and lists the others.
        """
        preparation, prepared = self._prepared(graph)
        _refuse(preparation.refused)
        choose(prepared, data, preparation.wishes, self.rounding, progress)
        return settle(prepared, preparation.small)

    def unsupported(self, graph: Graph) -> list[Unsupported]:
        """The steps that have no integer form, by module path."""
        return self._prepared(graph)[0].refused

    def _prepared(self, graph: Graph) -> tuple[Preparation, Graph]:
        if graph.branches:
            raise GraphError("hardware has no branches: the model chooses what to compute by torch.cond")
        edit = as_products(Canonicalize(keep_training=False)(graph)).edit()
        wide = self.bits + 4 if self.wide is None else self.wide
        table = min(self.bits + 2, 16) if self.table is None else self.table
        options = Options(self.bits, wide, table, self.index, self.multiplier, self.rounding)
        preparation = Preparation(edit, options)
        walk(preparation)
        prepared = edit.done()
        left = {node.name for node in prepared.nodes}
        preparation.wishes = {name: bits for name, bits in preparation.wishes.items() if name in left}
        preparation.small = {name: power for name, power in preparation.small.items() if name in left}
        return preparation, prepared


def _refuse(refused: list[Unsupported]) -> None:
    if refused:
        first, *others = refused
        more = "".join(f"; {each}" for each in others[:8]) + (
            f"; and {len(others) - 8} more" if len(others) > 8 else ""
        )
        raise GraphError(f"{first.op} has no integer form: {first.reason}{more}", first.path or "the model")
