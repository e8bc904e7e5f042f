"""What devices can do and how they are linked, from small TOML files.

    Hardware.named("h100-sxm")
    Cluster.of("h100-sxm", devices=16)
    Cluster.of("h100-sxm", mesh=(16, 8, 8))     # three axes, 1,024 devices

A file says of a device its arithmetic peaks, memory and bandwidth, of a link its bandwidth and latency, each with its
source.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from planish.analysis import peaks
from planish.errors import OptionError, UnknownName

FOLDER = Path(__file__).parent / "hardware"
CPU = "cpu"


@dataclass(frozen=True)
class Link:
    """What joins devices: bandwidth in B/s of one device in one direction, latency in s of one message.

    `step` is what a message takes from one device to the next, in s, once a collective runs.
    """

    bandwidth: float
    latency: float
    step: float = 1e-6


LOCAL = Link(0.9e9, 2e-4, 5e-4)
"""Gloo between processes of one machine, a core each: `python -m benchmarks.training.ranking --links`."""


@dataclass(frozen=True)
class Hardware:
    """One kind of device, and its links.

    Attributes:
        key: The name that it is asked for by.
        name: In full.
        peak: Arithmetic by precision, FLOP/s.
        memory: Bytes of one device.
        bandwidth: Of its memory, B/s.
        per_node: Devices of one node.
        node: The link within a node.
        network: The link between nodes, for each device.
        source: Where the numbers are from.
        cores: What all devices share: those of this machine, where processes stand for devices; 0 if nothing.
    """

    key: str
    name: str
    peak: Mapping[str, float]
    memory: float
    bandwidth: float
    per_node: int
    node: Link
    network: Link
    source: str
    cores: int = 0

    @classmethod
    def named(cls, name: str) -> Hardware:
        """The hardware of that name; "cpu" is this machine, as measured; a path ending in .toml is read.

        Raises:
            UnknownName: There is none.
            OptionError: A file that cannot be read.
        """
        if name == CPU:
            return this_machine()
        file = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
        if not file.is_file():
            raise UnknownName("hardware", name, known(), "--hardware")
        try:
            table = tomllib.loads(file.read_text(encoding="utf-8"))
            node, network = table["node"], table["network"]
            near, far = (Link(float(link["bandwidth"]), float(link["latency"])) for link in (node, network))
            peak = {precision: float(rate) for precision, rate in table["peak"].items()}
            memory, bandwidth, count = float(table["memory"]), float(table["bandwidth"]), int(node["devices"])
            return cls(file.stem, table["name"], peak, memory, bandwidth, count, near, far, table["source"])
        except (KeyError, TypeError, ValueError) as error:
            hint = f"as {FOLDER / 'h100-sxm.toml'}"
            raise OptionError(f"cannot read the hardware: {error}", str(file), hint) from error


def known() -> list[str]:
    """The names of all hardware that is described."""
    return sorted([*(file.stem for file in FOLDER.glob("*.toml")), CPU])


@cache
def this_machine() -> Hardware:
    """This CPU, one thread a process: peaks as `planish.analysis.peaks` measures them, links as gloo's."""
    found = peaks(threads=1)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / cores
    peak = {"fp32": found.gemm["f32"].rate, "bf16": found.gemm["bf16"].rate, "fp16": found.gemm["bf16"].rate}
    return Hardware(
        CPU, found.cpu, peak, memory, found.memory.rate, 1024, LOCAL, LOCAL, "planish.analysis.peaks", cores
    )


@dataclass(frozen=True)
class Cluster:
    """Devices of one kind, as a mesh whose last axis lies within a node.

    Attributes:
        hardware: Of each device.
        mesh: Sizes of the axes; a plan's axes are products of these, in order. One axis leaves all open.
    """

    hardware: Hardware
    mesh: tuple[int, ...]

    @classmethod
    def of(cls, hardware: str | Hardware, devices: int | None = None, mesh: Sequence[int] | None = None) -> Cluster:
        """Of hardware by name, and a number of devices or a mesh.

        Raises:
            OptionError: Both or neither is given, or a size is no positive number.
        """
        if (devices is None) == (mesh is None):
            raise OptionError("give a number of devices or a mesh", "planish plan", "--devices 8, or --mesh 16x8x8")
        axes = tuple(mesh) if mesh is not None else (int(devices or 0),)
        if not axes or any(axis < 1 for axis in axes):
            raise OptionError(f"a mesh has axes of 1 or more, not {axes}", "planish plan", "--mesh 16x8x8")
        return cls(hardware if isinstance(hardware, Hardware) else Hardware.named(hardware), axes)

    @property
    def devices(self) -> int:
        """How many there are."""
        return math.prod(self.mesh)


def parse_mesh(text: str) -> tuple[int, ...]:
    """The axes of "16x8x8".

    Raises:
        OptionError: It is no mesh.
    """
    try:
        return tuple(int(part) for part in text.lower().split("x"))
    except ValueError:
        raise OptionError(f"not a mesh: {text!r}", "--mesh", "--mesh 16x8x8") from None
