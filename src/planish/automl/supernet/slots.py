"""What a supernet decides: for each decision its options, as passes that relax."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from planish.errors import OptionError, UnknownName
from planish.graph import Candidate, Graph, Pass
from planish.holes import Label

Point = Mapping[str, Label]


@dataclass(frozen=True)
class Slot:
    """A decision of a supernet.

    Attributes:
        name: What a point calls it.
        labels: What a point calls its options.
        variants: For each option the pass that makes it, restricted to the places that this decision is about; None
            leaves the graph as it is.
    """

    name: str
    labels: tuple[Label, ...]
    variants: tuple[Pass | None, ...]

    def __post_init__(self) -> None:
        if len(self.labels) < 2 or len(self.labels) != len(self.variants):
            raise OptionError(f"{len(self.labels)} options and {len(self.variants)} passes", self.name)

    def index(self, label: Label) -> int:
        """Which option has that label.

        Raises:
            UnknownName: None has.
        """
        if label not in self.labels:
            raise UnknownName("option", str(label), map(str, self.labels), self.name)
        return self.labels.index(label)


@dataclass(frozen=True)
class Site:
    """A value that the options of a decision give in different ways.

    Attributes:
        slot: Number of the decision.
        node: Name of the operation (or tensor) whose value it is.
        readers: Names of the operations that read what is given; all if none is named.
        options: What each option puts there; None leaves the value as it is.
    """

    slot: int
    node: str
    readers: tuple[str, ...]
    options: tuple[Candidate | None, ...]


def sites_of(graph: Graph, place: int, slot: Slot) -> list[Site]:
    """The values that a decision is about, in the order in which its options name them.

    Raises:
        OptionError: An option does not relax; names the decision and the option.
    """
    found: dict[tuple[str, tuple[str, ...]], list[Candidate | None]] = {}
    for option, (label, variant) in enumerate(zip(slot.labels, slot.variants, strict=True)):
        given = [] if variant is None else variant.candidates(graph)
        if variant is not None and not given:
            raise OptionError(
                f"the option {str(label)!r} has nothing that could stand beside the others: "
                f"{type(variant).__name__} only works as a whole",
                slot.name,
                "a strategy that tries points one by one",
            )
        for candidate in given:
            key = candidate.node, candidate.readers
            found.setdefault(key, [None] * len(slot.labels))[option] = candidate
    return [Site(place, node, readers, tuple(options)) for (node, readers), options in found.items()]


def all_points(slots: Sequence[Slot]) -> list[dict[str, Label]]:
    """Every point, the last decision fastest."""
    names = [slot.name for slot in slots]
    return [dict(zip(names, labels, strict=True)) for labels in product(*(slot.labels for slot in slots))]
