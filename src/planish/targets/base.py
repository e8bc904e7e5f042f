"""What a target and an artifact are, and the table of targets."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from planish.graph import Graph
from planish.record import Measurement
from planish.registry import Registry

Data = Iterable[tuple[Any, ...]]
Progress = Callable[[int, int, str], None]
"""Told how many steps are done, of how many (0 if unknown), and what is being done."""


@dataclass(frozen=True)
class Unsupported:
    """An operation that a target or an engine cannot take.

    Attributes:
        path: Path of the module it came from.
        op: The operation's name.
        reason: Why, in a sentence.
    """

    path: str
    op: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path or 'the model'}: {self.op}: {self.reason}"


@runtime_checkable
class Artifact(Protocol):
    """Something that runs: called like the model, it returns what the model returns."""

    measurements: Sequence[Measurement]
    path: Path | None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run once."""
        ...

    def measure(self) -> list[Measurement]:
        """Time it, and read what it executes."""
        ...

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write it as a folder that `planish.load` reads."""
        ...


@runtime_checkable
class Target(Protocol):
    """Hardware, and how code for it is made."""

    runs_here: ClassVar[bool]
    """Whether its artifacts are programs of this machine, which can be started and timed; others measure themselves."""

    def unsupported(self, graph: Graph) -> list[Unsupported]:
        """What of the graph it cannot take; empty if it takes all of it."""
        ...

    def estimate(self, graph: Graph) -> list[Measurement]:
        """What it would cost, without building it."""
        ...

    def build(
        self,
        graph: Graph,
        *,
        data: Data | None = None,
        original: Graph | None = None,
        folder: str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
    ) -> Artifact:
        """Make an artifact; with the `original` graph, measure it beside that."""
        ...


targets = Registry("target", {"cpu": "planish.targets.cpu:Cpu", "fpga": "planish.targets.fpga.target:Fpga"})
"""Names of targets, as in `planish.build(graph, target="cpu")`."""
loaders = Registry(
    "artifact",
    {
        "artifact.json": "planish.targets.cpu:load",
        "fpga.json": "planish.targets.fpga.artifact:load",
    },
)
"""The file that a folder of an artifact holds -> what reads the folder."""
