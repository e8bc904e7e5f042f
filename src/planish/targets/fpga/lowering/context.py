"""What lowering knows while it goes through a graph, and the error of a step that has no integer meaning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from planish.errors import GraphError
from planish.graph import Graph, Node
from planish.targets.fpga.lowering.dyadic import dyadic
from planish.targets.fpga.lowering.held import Held, reshaped_axes
from planish.targets.fpga.operations.base import Codes, Integers, Operation, Value
from planish.targets.fpga.operations.layout import Permute, Reshape
from planish.targets.fpga.operations.pointwise import Constant

Rule = Callable[["Context", Node], "Held | list[Held]"]
MOST_BITS = 24
"""Of a constant."""


class Refusal(Exception):  # caught where the step is known, and told with its path
    """A step that has no integer meaning, and why."""


class Blocked(Exception):
    """A step that reads one that was refused."""


class Context:
    """A program in the making.

    Attributes:
        graph: The prepared graph, in float64.
        real: What each step gives for one sample.
        constant: The steps that depend on no input.
    """

    def __init__(self, graph: Graph, real: dict[fx.Node, Any], constant: set[fx.Node], rules: dict[str, Rule]) -> None:
        self.graph, self.real, self.constant, self.rules = graph, real, constant, rules
        self.operations: list[Operation] = []
        self.inputs: dict[fx.Node, Value] = {}
        self.held: dict[fx.Node, Held | list[Held]] = {}
        self.refused: dict[fx.Node, str] = {}
        self.roundings: dict[str, str] = {}
        self._names: set[str] = set()

    @property
    def nodes(self) -> list[Node]:
        """The steps of the graph, in order."""
        return [Node(self.graph, node) for node in self.graph.fx.nodes]

    # Steps -----------------------------------------------------------------------------------------------------------

    def shape(self, node: Node) -> tuple[int, ...]:
        """The shape of a step's tensor, for one sample."""
        return tuple(self.real[node.fx].shape)

    def is_constant(self, node: object) -> bool:
        """Whether it is a number, or a step that depends on no input."""
        return not isinstance(node, Node) or node.fx in self.constant

    def number(self, value: object) -> NDArray[np.float64]:
        """The value of a constant, in float64."""
        real = self.real[value.fx] if isinstance(value, Node) else value
        return np.asarray(real.detach().double().numpy() if isinstance(real, Tensor) else real, dtype=np.float64)

    def plain(self, value: Any) -> Any:
        """An argument with sizes that the graph computes as the integers they are."""
        if isinstance(value, Node):
            real = self.real[value.fx]
            return int(real) if isinstance(real, int | torch.SymInt) else real
        return [self.plain(item) for item in value] if isinstance(value, list | tuple) else value

    def argument(self, node: Node, name: str) -> Any:
        """An argument of a step, sizes as integers."""
        return self.plain(node.argument(name))

    def take(self, node: Node) -> Held:
        """What a step gives, as a value of the program.

        Raises:
            Refusal: It has no integer meaning.
            Blocked: What it reads has none.
        """
        self.lower(node)
        found = self.held[node.fx]
        assert isinstance(found, Held), "only the rule of getitem reads several tensors"
        return found

    def several(self, node: Node) -> list[Held]:
        """What a step that gives several tensors gives."""
        self.lower(node)
        found = self.held[node.fx]
        assert isinstance(found, list), "only steps that give several tensors are read so"
        return found

    def lower(self, node: Node) -> None:
        """Make a step's operations, unless they are made.

        Raises:
            Blocked: It has no integer meaning, which is noted, or what it reads has none.
        """
        if node.fx in self.held:
            return
        if node.fx in self.refused:
            raise Blocked
        try:
            if node.fx in self.constant:
                self.held[node.fx] = self.constant_value(node, self.number(node), "")
            elif node.kind == "input":
                raise Refusal("a float goes in that no cast to a fixed-point format reads first")
            elif node.op not in self.rules:
                raise Refusal(f"there is no integer form of {node.op}")
            else:
                self.held[node.fx] = self.rules[node.op](self, node)
        except (Refusal, GraphError) as refusal:
            self.refused[node.fx] = str(refusal).splitlines()[0]
            raise Blocked from refusal

    # Values ----------------------------------------------------------------------------------------------------------

    def free(self, stem: str) -> str:
        """A name that is not taken yet."""
        name, count = stem, 0
        while name in self._names:
            count += 1
            name = f"{stem}_{count}"
        self._names.add(name)
        return name

    def value(self, node: Node, shape: Sequence[int], codes: Codes, suffix: str = "") -> Value:
        """A value named after a step; what rounds belongs to the module that made what is rounded."""
        maker = node
        while maker.op == "cast" or (not maker.path and maker.kind == "call"):
            streams = [each for each in maker.inputs if not self.is_constant(each)]
            if not streams:
                break
            maker = streams[0]
        return Value(self.free(node.name + suffix), tuple(shape), codes, maker.path or node.path)

    def emit(self, operation: Operation, *inputs: Value) -> Value:
        """Add an operation, its output's codes made as narrow as its inputs allow."""
        self.operations.append(operation)
        return operation.output

    def constant_value(self, node: Node, real: NDArray[np.float64], suffix: str = "_constant") -> Held:
        """A value that is always these numbers, with the axes as they are.

        Raises:
            Refusal: They are no integers times a power of two.
        """
        codes, frac = self.codes(real, "a constant")
        bounds = Codes(int(codes.min()), int(codes.max()), frac)
        value = self.value(node, real.shape or (1,), bounds, suffix)
        self.emit(Constant((), value, codes.reshape(value.shape)))
        return Held(value, real.shape or (1,), tuple(range(max(real.ndim, 1))))

    @staticmethod
    def codes(real: NDArray[np.float64], what: str, most: int = MOST_BITS) -> tuple[Integers, int]:
        """The integers that numbers are.

        Raises:
            Refusal: They are none of at most so many bits.
        """
        found = dyadic(real)
        if found is None or int(np.abs(found[0]).max()).bit_length() > most:
            raise Refusal(f"{what} is no integer of {most} bits times a power of two: it has no fixed-point format")
        return found

    # Layout ----------------------------------------------------------------------------------------------------------

    def arrange(self, held: Held, axes: Sequence[int], node: Node) -> Held:
        """The value with exactly these axes of the model in this order; the others have size 1."""
        axes = tuple(axes)
        if held.before is not None:
            held = self._restored(held, node)
        if held.axes == axes:
            return held
        wide = tuple(axis for axis in axes if held.model[axis] > 1)
        if set(wide) != set(held.wide_axes):
            raise Refusal(f"axes {axes} of {held.model} leave numbers out")
        if wide != held.wide_axes:
            rest = [axis for axis in held.axes if axis not in wide]
            order = [held.axes.index(axis) for axis in (*rest, *wide)]
            shape = [held.value.shape[place] for place in order]
            moved = self.value(node, shape, held.value.codes, "_moved")
            self.emit(Permute((held.name,), moved, tuple(order)))
            held = Held(moved, held.model, (*rest, *wide))
        return self.rewire(held, held.model, axes, node) if held.axes != axes else held

    def rewire(self, held: Held, model: tuple[int, ...], axes: tuple[int, ...], node: Node) -> Held:
        """The same numbers in the same order under other axes."""
        shape = tuple(model[axis] for axis in axes)
        if shape == held.value.shape:
            return Held(held.value, model, axes)
        wired = self.value(node, shape, held.value.codes, "_wired")
        self.emit(Reshape((held.name,), wired))
        return Held(wired, model, axes)

    def _restored(self, held: Held, node: Node) -> Held:
        assert held.before is not None
        old = self.arrange(held.before, range(len(held.before.model)), node)
        axes = reshaped_axes(old, held.model)
        assert axes is not None, "what lies in the model's order can be reshaped"
        return self.rewire(old, held.model, axes, node)

    def last(self, held: Held, axis: int, node: Node) -> Held:
        """The value with an axis of the model at its end, the others as they are."""
        axis %= len(held.model)
        others = [each for each in held.axes if each != axis]
        return self.arrange(held, (*others, axis), node)
