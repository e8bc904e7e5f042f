"""A program as blocks and wires: what is instantiated, and which stream goes where. No text yet."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from planish.errors import PlanishError, UserError
from planish.targets.fpga.blocks import blocks
from planish.targets.fpga.blocks.base import Block, Fold, Instance
from planish.targets.fpga.operations.layout import Reshape
from planish.targets.fpga.program import Operation, Program, Value
from planish.targets.fpga.streamed.converters import converter, fitting
from planish.targets.fpga.streams import Stream

Folds = Mapping[str, Fold]
"""Fold of each operation, by the name of the value that it makes."""
Depths = Mapping[str, int]
"""Beats that the FIFO before a block's input holds, by `value.port`; nothing where it says nothing."""
Chosen = Mapping[str, str]
"""Registered name of the block to use, by a pattern of module paths and, after a colon, the kind of operation:
`{"encoder.*:linear": "mine"}`."""


@dataclass(frozen=True)
class Cell:
    """A block in its place.

    Attributes:
        name: Of the instance; readable, from the module's path.
        instance: What it is.
        inputs: Stream of each input port, by the port's prefix.
        outputs: Streams that leave; several only of a `split`.
        comment: What it does, in a line.
        path: The user's module.
        operation: Which operation it computes; None for what only connects.
        home: Folder of the block's own source, which may not be the library's.
    """

    name: str
    instance: Instance
    inputs: Mapping[str, Stream]
    outputs: tuple[Stream, ...]
    comment: str = ""
    path: str = ""
    operation: Operation | None = None
    home: Path | None = None


@dataclass(frozen=True)
class Wire:
    """A stream that is another one under another name: a reshape, or a port of the top.

    Attributes:
        source: Where it comes from.
        made: What it is called now.
    """

    source: Stream
    made: Stream


@dataclass(frozen=True)
class Netlist:
    """All that stands between the ports, in the order of the program.

    Attributes:
        inputs: Streams from outside.
        outputs: Streams to outside.
        parts: Cells and wires; each comes after what makes its streams.
    """

    inputs: tuple[Stream, ...]
    outputs: tuple[Stream, ...]
    parts: tuple[Cell | Wire, ...]

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All instances."""
        return tuple(part for part in self.parts if isinstance(part, Cell))

    @property
    def blocks(self) -> tuple[Cell, ...]:
        """The cells that compute."""
        return tuple(cell for cell in self.cells if cell.operation is not None)

    @property
    def fifos(self) -> tuple[Cell, ...]:
        """The FIFOs."""
        return tuple(cell for cell in self.cells if cell.instance.module == "fifo")


def block_of(operation: Operation, chosen: Chosen | None = None) -> Block:
    """The block for an operation: the one that is chosen for its module, or else the library's.

    Raises:
        UserError: There is none.
    """
    kind = type(operation).__name__.lower()
    for pattern, name in (chosen or {}).items():
        wanted, _, only = pattern.partition(":")
        if fnmatchcase(operation.output.path, wanted) and only in ("", kind):
            return blocks[name]()
    if kind not in blocks:
        raise UserError(f"no block computes {kind}", operation.where, "register one: an entry point of planish.block")
    return blocks[kind]()


def connect(program: Program, folds: Folds, depths: Depths | None = None, chosen: Chosen | None = None) -> Netlist:
    """The blocks of a program, folded as told, and between them splits, registers, lane converters and FIFOs.

    Args:
        program: What to compute.
        folds: For each operation but the reshapes, which are wires.
        depths: Of the FIFOs.
        chosen: Blocks of the user's own.

    Raises:
        UserError: An operation that no block computes, or a fold or FIFO for what is not there.
    """
    return _Wiring(program, folds, dict(depths or {}), chosen or {}).netlist()


def ports_of(count: int) -> tuple[str, ...]:
    """Prefixes of a block's inputs."""
    return ("in",) if count == 1 else tuple("abcdefghijklmnopqrstuvwxyz"[:count])


@dataclass
class _Wiring:
    program: Program
    folds: Folds
    depths: dict[str, int]
    chosen: Chosen
    names: set[str] = field(default_factory=lambda: {"clk", "rst"})
    parts: list[Cell | Wire] = field(default_factory=list)
    waiting: dict[str, list[Stream]] = field(default_factory=dict)

    def netlist(self) -> Netlist:
        program = self.program
        instances = {each.output.name: self._instance(each) for each in program.operations}
        inputs = tuple(
            Stream(self._name(value.name), value, self._lanes_wanted(value, instances)) for value in program.inputs
        )
        count = len(program.outputs)
        ports = [self._name(f"output_{number}" if count > 1 else "output") for number in range(count)]
        for stream in inputs:
            self._offer(stream)
        for each in program.operations:
            self._place(each, instances[each.output.name])
        outputs = []
        for port, name in zip(ports, program.outputs, strict=True):
            source = self.waiting[name].pop(0)
            outputs.append(replace(source, name=port))
            self.parts.append(Wire(source, outputs[-1]))
        if self.depths:
            raise UserError(f"no input of a block is called {sorted(self.depths)[0]!r}", "the depths of FIFOs")
        return Netlist(inputs, tuple(outputs), tuple(self.parts))

    def _instance(self, operation: Operation) -> Instance | None:
        if isinstance(operation, Reshape):
            return None
        inputs = tuple(self.program.values[name] for name in operation.inputs)
        if operation.output.name not in self.folds:
            raise UserError("no fold is given", operation.where, "planish.targets.fpga.streamed.folding.choose")
        try:
            block = block_of(operation, self.chosen)
            return block.instance(operation, inputs, self.folds[operation.output.name])
        except PlanishError as error:
            raise type(error)(error.what, error.where or operation.where, error.hint) from error

    def _lanes_wanted(self, value: Value, instances: Mapping[str, Instance | None]) -> int:
        """Lanes of an input of the program: those of its first reader, so that nothing needs to convert them."""
        for reader in self.program.readers(value.name):
            instance = instances[reader.output.name]
            if instance is not None:
                return instance.lanes_in[reader.inputs.index(value.name)]
        return 1

    def _place(self, operation: Operation, instance: Instance | None) -> None:
        name, value = self._name(_readable(operation)), operation.output
        if instance is None:
            self._reshape(self.waiting[operation.inputs[0]].pop(0), value, name)
            return
        inputs: dict[str, Stream] = {}
        places = zip(ports_of(len(operation.inputs)), instance.lanes_in, operation.inputs, strict=True)
        for port, lanes, source in places:
            inputs[port] = self._with_lanes(self.waiting[source].pop(0), lanes)
            if depth := self.depths.pop(f"{value.name}.{port}", 0):
                inputs[port] = self._fifo(f"{name}_{port}", inputs[port], depth)
        made = Stream(name, value, instance.lanes_out)
        comment = _comment(operation, self.program, instance)
        home = Path(inspect.getfile(type(block_of(operation, self.chosen)))).parent
        self.parts.append(Cell(name, instance, inputs, (made,), comment, value.path, operation, home))
        self._offer(made, joined=len(inputs) > 1)

    def _offer(self, stream: Stream, joined: bool = False) -> None:
        """Give a stream to each that reads its value, through a split where there are several.

        Where streams part or were joined stands a register, in which long paths of `ready` end.
        """
        value = stream.value.name
        count = sum(each.inputs.count(value) for each in self.program.operations) + self.program.outputs.count(value)
        if count == 0:  # what nobody takes would stop its block
            where = stream.value.path or "the program"
            raise UserError(f"nobody reads {value}", where, "leave it out of the graph")
        held = stream
        if joined or count > 1:
            held = replace(stream, name=self._name(f"{stream.name}_held"))
            self._connector(f"{stream.name}_skid", Instance("skid", {"WIDTH": stream.width}), stream, held)
        copies = [held]
        if count > 1:
            copies = [replace(stream, name=self._name(f"{stream.name}_copy_{number}")) for number in range(count)]
            instance = Instance("split", {"WIDTH": stream.width, "OUTPUTS": count})
            self._connector(f"{stream.name}_split", instance, held, *copies)
        self.waiting[value] = copies

    def _fifo(self, name: str, stream: Stream, depth: int) -> Stream:
        kept = replace(stream, name=self._name(f"{name}_kept"))
        self._connector(f"{name}_fifo", Instance("fifo", {"WIDTH": stream.width, "DEPTH": depth}), stream, kept)
        return kept

    def _with_lanes(self, stream: Stream, lanes: int) -> Stream:
        """The stream with so many numbers in a beat."""
        if stream.lanes == lanes:
            return stream
        made = Stream(self._name(f"{stream.name}_by_{lanes}"), stream.value, lanes)
        self._connector(f"{stream.name}_lanes", converter(stream.value, stream.lanes, lanes), stream, made)
        return made

    def _connector(self, name: str, instance: Instance, stream: Stream, *made: Stream) -> None:
        self.parts.append(Cell(self._name(name), instance, {"in": stream}, made, path=stream.value.path))

    def _reshape(self, stream: Stream, value: Value, name: str) -> None:
        """The same beats under another shape; where their rows are padded, through lanes that need no padding."""
        stream = self._with_lanes(stream, fitting(value, stream.value, stream.lanes))
        made = Stream(name, value, stream.lanes)
        self.parts.append(Wire(stream, made))
        self._offer(made)

    def _name(self, wanted: str) -> str:
        """A name that no other stream or instance has. None is a keyword: the words added to it see to that."""
        plain = re.sub(r"_+", "_", re.sub(r"\W", "_", wanted)).strip("_") or "value"
        plain = f"n{plain}" if plain[0].isdigit() else plain
        name, number = plain, 1
        while name in self.names:
            number += 1
            name = f"{plain}_{number}"
        self.names.add(name)
        return name


def _readable(operation: Operation) -> str:
    path = operation.output.path.replace(".", "_")
    return f"{path or operation.output.name}_{type(operation).__name__.lower()}"


def _comment(operation: Operation, program: Program, instance: Instance) -> str:
    """For example: `Linear (64,) -> (32,) at encoder.fc1: 4 in, 2 out, a sample in 256 cycles`."""
    shapes = [_sizes(program.values[name].shape) for name in operation.inputs]
    where = f" at {operation.output.path}" if operation.output.path else ""
    lanes = " and ".join(map(str, instance.lanes_in))
    return (
        f"{type(operation).__name__}{where}: {', '.join(shapes)} -> {_sizes(operation.output.shape)}, "
        f"{f'{lanes} in, ' if lanes else ''}{instance.lanes_out} out a cycle, a sample in {instance.interval} cycles"
    )


def _sizes(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "1"
