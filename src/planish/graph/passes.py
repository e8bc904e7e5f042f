"""What a pass is: a frozen dataclass that makes one graph out of another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from planish.graph.graph import Graph
from planish.holes import Fillable

Data = Iterable[tuple[Any, ...]]
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Step:
    """One thing that a pass would do.

    Attributes:
        path: Module path of what it touches.
        node: Name of the node.
        action: What it does there, in a few words ("weight to int8@channel0").
        bytes_before: Size of the tensor now; 0 where none changes.
        bytes_after: Size after the pass.
    """

    path: str
    node: str
    action: str
    bytes_before: int = 0
    bytes_after: int = 0


@dataclass(frozen=True)
class Candidate:
    """What a pass would put at one place, beside what other options of the same decision would put there.

    Attributes:
        node: Name of the operation (or tensor) whose value it gives.
        inputs: Names of the values that `module` is called with; `node` itself where the value is changed, not made
            anew.
        module: Gives a tensor of the value's shape.
        readers: Names of the operations that read it instead of the value; all if none is named.
    """

    node: str
    inputs: tuple[str, ...]
    module: nn.Module
    readers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pass(Fillable, ABC):
    """A change of a graph, as a value: its fields are its options in Python, in a recipe and on the command line.

    A valid graph goes in and a valid graph comes out; the graph that goes in is not changed.

    Attributes:
        learns: Whether it trains: a recipe then gives it the data to learn from, not those to calibrate on.
    """

    learns: ClassVar[bool] = False

    def __call__(self, graph: Graph, data: Data | None = None, progress: Progress | None = None) -> Graph:
        """Apply the pass and verify what comes out.

        Args:
            graph: The graph to start from.
            data: Calibration data, re-iterable `(args, kwargs)`, for passes that look at activations.
            progress: Called with (done, total, what) while it works.
        """
        return self.apply(graph, data, progress or _silent).verify()

    @abstractmethod
    def plan(self, graph: Graph) -> list[Step]:
        """What the pass would touch, without touching anything.

        Raises:
            OptionError: It would touch nothing because a selector matches nothing.
        """

    def draft(self, graph: Graph) -> Graph:
        """The graph as it would look afterwards, values aside: what the plan of the next pass starts from.

        A pass that changes no operation and no shape has nothing to draft.
        """
        return graph

    def candidates(self, graph: Graph) -> list[Candidate]:
        """How the pass relaxes: what it puts in the graph, as modules that can stand beside those of other options and
        be mixed with them or share weights. None for a pass that only works as a whole."""
        return []

    @abstractmethod
    def apply(self, graph: Graph, data: Data | None, progress: Progress) -> Graph:
        """The changed graph. Called by `__call__` only."""


def _silent(_done: int, _total: int, _what: str) -> None:
    pass
