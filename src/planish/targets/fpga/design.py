"""What both modes make: SystemVerilog with streams at its ports, and what is known of it without running it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from planish.targets.fpga.streams import Stream


@dataclass(frozen=True)
class Part:
    """An instance in top.sv.

    Attributes:
        name: Of the instance.
        module: What it is.
        path: The user's module.
        comment: What it does, in a line; empty where it only connects others.
        interval: Cycles a sample keeps it busy.
    """

    name: str
    module: str
    path: str
    comment: str
    interval: int


@dataclass(frozen=True)
class Design:
    """A design.

    Attributes:
        inputs: Streams that come in.
        outputs: Streams that go out.
        files: The text of each file by its path: `top.sv`, whose module is `top`, `rtl/*.sv`, `memories/*.hex`.
        parts: The instances of the top.
        interval: Cycles from one sample to the next, as the blocks promise.
        patience: Cycles after which a simulation in which nothing comes out has hung.
    """

    inputs: tuple[Stream, ...]
    outputs: tuple[Stream, ...]
    files: Mapping[str, str]
    parts: tuple[Part, ...]
    interval: int
    patience: int
