"""What preparing knows while it goes through a graph: which values are in fixed point, and which still need it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import fx

from planish.formats import Format, Int
from planish.formats.rounding import Rounding
from planish.graph import Editor, Node
from planish.graph.evaluate import fold
from planish.targets.base import Unsupported
from planish.targets.fpga.lowering import shapes
from planish.targets.fpga.lowering.dyadic import dyadic
from planish.targets.fpga.lowering.rules import RULES
from planish.targets.fpga.preparing.ranges import fixed_format

_WIRES = shapes.reshape, shapes.permute, shapes.expand, shapes.cut, shapes.same
WIRES = frozenset(op for op, rule in RULES.items() if rule in _WIRES)
"""Steps that move the numbers of one tensor into another."""
MOVES = WIRES | frozenset(op for op, rule in RULES.items() if rule in (shapes.parts, shapes.item))
"""Steps whose numbers are those of their input."""
State = Literal["fixed", "exact", "real", "constant", "other"]
"""A value is in a fixed-point format, follows from such ones exactly, is any real number (an input, or a function that
needs a table), depends on no input, or is no tensor of numbers."""


@dataclass(frozen=True)
class Options:
    """As the fields of Prepare."""

    bits: int
    wide: int
    table: int
    index: int
    multiplier: int
    rounding: Rounding


class Preparation:
    """A graph in the making.

    Attributes:
        states: What is known of each step.
        leaves: The fixed-point steps that a function's numbers come from.
        wishes: Bits of each cast whose format is still to be found.
        small: The sum of squares that a small number is added to before a root divides, by the name of the addition.
        refused: Steps that have no integer form.
    """

    def __init__(self, edit: Editor, options: Options) -> None:
        self.edit, self.options = edit, options
        self.states: dict[fx.Node, State] = {}
        self.leaves: dict[fx.Node, frozenset[fx.Node]] = {}
        self.wishes: dict[str, int] = {}
        self.small: dict[str, str] = {}
        self.refused: list[Unsupported] = []
        self._casts: dict[tuple[fx.Node, int], Node] = {}

    def state(self, value: object) -> State:
        """What is known of an argument."""
        return self.states.get(value.fx, "other") if isinstance(value, Node) else "constant"

    def refuse(self, node: Node, reason: str) -> None:
        """Note a step that has no integer form."""
        self.refused.append(Unsupported(node.path, node.op, reason))

    def leaves_of(self, node: Node) -> frozenset[fx.Node]:
        """The fixed-point steps that a step's numbers come from, or will."""
        if found := self.leaves.get(node.fx):
            return found
        cast = self._casts.get((node.fx, self.options.table))
        return frozenset({node.fx if cast is None else cast.fx})

    # Building --------------------------------------------------------------------------------------------------------

    def call(self, op: str, *args: Any, before: Node, state: State = "exact", **kwargs: Any) -> Node:
        """Insert an ATen operation."""
        name, _, overload = op.partition(".")
        target = getattr(getattr(torch.ops.aten, name), overload or "default")
        node = self.edit.call(target, *args, before=before, **kwargs)
        self.states[node.fx] = state
        return node

    def cast_to(self, source: Node, form: Format, before: Node) -> Node:
        """Insert a cast to a format that is known; where no module reads it, it belongs to what it rounds."""
        path, maker = before.path, source
        while before.kind == "output" or not path:
            path = maker.path
            if path or not maker.inputs:
                break
            maker = maker.inputs[0]
        node = self.edit.call(torch.ops.planish.cast.default, source, [], str(form), before=before, path=path or None)
        self.states[node.fx] = "fixed"
        return node

    def blank(self, source: Node, bits: int, before: Node) -> Node:
        """Insert a cast to a fixed-point format that calibration finds."""
        node = self.cast_to(source, Format(Int(bits), scale=None, rounding=self.options.rounding), before)
        self.wishes[node.name] = bits
        return node

    def following(self, node: Node) -> Node:
        """The step after this one, which what is made of it goes in front of."""
        step = node.fx.next
        while step.op in ("placeholder", "get_attr"):
            step = step.next
        return Node(self.edit.graph, step)

    # Fixed point -----------------------------------------------------------------------------------------------------

    def fix(self, node: Node, source: Node, bits: int) -> Node:
        """Let a step read an input in fixed point, and return what it reads."""
        if self.state(source) == "constant":
            return self.fix_constant(node, source, bits)
        if self.state(source) in ("fixed", "other"):
            return source
        if self.early(source, bits):
            return source
        key = (source.fx, bits)
        if key not in self._casts:
            self._casts[key] = self.blank(source, bits, node)
        self.edit.replace_input(node, source, self._casts[key])
        return self._casts[key]

    def early(self, source: Node, bits: int) -> bool:
        """Cast numbers before they are moved rather than after, so that narrow ones are moved; whether it could be."""
        moved: list[Node] = []
        while source.op in WIRES and self.state(source) == "exact" and len(source.users) == 1:
            moved.append(source)
            source = source.inputs[0]
        if not moved:
            return False
        key = (source.fx, bits)
        if key not in self._casts:
            self._casts[key] = self.blank(source, bits, self.following(source))
        self.edit.replace_input(moved[-1], source, self._casts[key])
        self.states |= {each.fx: "fixed" for each in moved}
        return True

    def cast_if_needed(self, source: Node, bits: int, before: Node) -> Node:
        """A value in fixed point, for steps that are inserted."""
        if self.state(source) in ("fixed", "constant", "other") or self.early(source, bits):
            return source
        key = (source.fx, bits)
        if key not in self._casts:
            self._casts[key] = self.blank(source, bits, before)
        return self._casts[key]

    def fix_constant(self, node: Node, source: Node, bits: int) -> Node:
        """Let a step read a constant in fixed point, rounded where it is stored."""
        reader, at = node, source
        while (value := fold(self.edit.graph, at.fx)) is None and at.inputs:
            reader, at = at, next(each for each in at.inputs if each.shape is not None)
        if value is None or not value.is_floating_point():
            return source
        found = dyadic(value.detach().double().numpy())
        if found is not None and int(abs(found[0]).max()).bit_length() < bits:
            return source
        form = fixed_format(value, bits, self.options.rounding, node.path)
        cast = self.cast_to(at, form, reader)
        self.states[cast.fx] = "constant"
        self.edit.replace_input(reader, at, cast)
        return cast if at.fx is source.fx else source

    def number(self, value: float, node: Node, name: str) -> Node:
        """A constant number, as an integer of as many bits as a multiplier has times a power of two."""
        return self.constant(torch.tensor(value, dtype=torch.float64), node, name)

    def constant(self, values: torch.Tensor, node: Node, name: str) -> Node:
        """Nonnegative constants, as integers of as many bits as a multiplier has times a power of two."""
        stem, taken, count = f"{node.name}__{name}", self.edit.graph.tensors, 0
        while f"{stem}_{count}" in taken:
            count += 1
        made = self.edit.add(f"{stem}_{count}", multiplier(values, self.options.multiplier))
        self.states[made.fx] = "constant"
        return made


def multiplier(values: torch.Tensor, bits: int) -> torch.Tensor:
    """Numbers rounded to integers of so many bits times one power of two, in float32."""
    largest = float(values.abs().max())
    if largest == 0:
        return values.float()
    frac = bits - 1 - int(torch.tensor(largest, dtype=torch.float64).log2().floor())
    codes = (values.double() * 2.0**frac).round().clamp(-(2**bits) + 1, 2**bits - 1)
    return (codes * 2.0**-frac).float()
