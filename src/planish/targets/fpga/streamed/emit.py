"""A netlist as SystemVerilog: the text of top.sv, and the blocks and memories that it needs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from planish.errors import GraphError
from planish.targets.fpga.blocks.base import Memory
from planish.targets.fpga.design import Design, Part
from planish.targets.fpga.streamed.netlist import Cell, Netlist, Wire
from planish.targets.fpga.streams import Stream

RTL = Path(__file__).parents[1] / "rtl"


def design(netlist: Netlist, title: str = "A model") -> Design:
    """The text of a netlist; the same netlist gives the same text.

    Raises:
        GraphError: A block's source is not there.
    """
    texts = {"top.sv": top(netlist, title)}
    for name, source in sorted(sources(netlist).items()):
        texts[f"rtl/{name}.sv"] = source
    for cell in netlist.cells:
        for parameter, memory in cell.instance.memories.items():
            texts[_memory_file(cell, parameter)] = hexadecimal(memory)
    parts = tuple(
        Part(cell.name, cell.instance.module, cell.path, cell.comment, cell.instance.interval) for cell in netlist.cells
    )
    beats = sum(stream.beats for cell in netlist.cells for stream in cell.outputs)
    work = sum(cell.instance.interval + cell.instance.latency for cell in netlist.cells)
    interval = max((cell.instance.interval for cell in netlist.cells), default=1)
    return Design(netlist.inputs, netlist.outputs, texts, parts, interval, 1000 + 2 * (beats + work))


def top(netlist: Netlist, title: str = "A model") -> str:
    """The text of top.sv."""
    ports = ["input  logic clk", "input  logic rst"]
    for stream in netlist.inputs:
        ports += [f"input  logic {stream.name}_valid", f"output logic {stream.name}_ready"]
        ports += [f"input  {_vector(stream)} {stream.name}_data"]
    for stream in netlist.outputs:
        ports += [f"output logic {stream.name}_valid", f"input  logic {stream.name}_ready"]
        ports += [f"output {_vector(stream)} {stream.name}_data"]
    lines = [f"// {title}, written by Planish.", "//"]
    lines += [f"// {_described(stream)}" for stream in (*netlist.inputs, *netlist.outputs)]
    lines += ["module top (", ",\n".join(f"    {port}" for port in ports), ");"]
    for part in netlist.parts:
        lines += ["", *(_instance(part) if isinstance(part, Cell) else _wires(part, netlist.outputs))]
    return "\n".join([*lines, "endmodule", ""])


def _described(stream: Stream) -> str:
    value, codes = stream.value, stream.value.codes
    sizes = "x".join(map(str, value.shape)) or "1"
    unit = f", a code is 2**{-codes.frac}" if codes.frac else ""
    return (
        f"{stream.name}: {sizes}, {stream.lanes} in each of {stream.beats} beats, {codes.bits} bits, "
        f"{'signed' if codes.signed else 'unsigned'}{unit}"
    )


def _vector(stream: Stream) -> str:
    return f"logic [{stream.width - 1}:0]"


def _declared(*streams: Stream) -> list[str]:
    lines = []
    for stream in streams:
        lines += [f"  logic {stream.name}_valid, {stream.name}_ready;", f"  {_vector(stream)} {stream.name}_data;"]
    return lines


def _wires(wire: Wire, ports: Iterable[Stream]) -> list[str]:
    made, source = wire.made.name, wire.source.name
    return [
        *([] if wire.made in ports else _declared(wire.made)),
        f"  assign {made}_valid = {source}_valid;",
        f"  assign {source}_ready = {made}_ready;",
        f"  assign {made}_data = {source}_data;",
    ]


def _instance(cell: Cell) -> list[str]:
    values = {name: str(value) for name, value in cell.instance.parameters.items()}
    values |= {name: f'"{_memory_file(cell, name)}"' for name in cell.instance.memories}
    parameters = [f"      .{name}({value})" for name, value in values.items()]
    ports = ["      .clk(clk)", "      .rst(rst)"]
    for prefix, stream in cell.inputs.items():
        ports += [f"      .{prefix}_{signal}({stream.name}_{signal})" for signal in ("valid", "ready", "data")]
    ports += [f"      .out_{signal}({_joined(cell, signal)})" for signal in ("valid", "ready")]
    ports += [f"      .out_data({cell.outputs[0].name}_data)"]
    return [
        *([f"  // {cell.comment}"] if cell.comment else []),
        *_declared(*cell.outputs),
        *(f"  assign {copy.name}_data = {cell.outputs[0].name}_data;" for copy in cell.outputs[1:]),
        f"  {cell.instance.module}" + (" #(" if parameters else f" {cell.name} ("),
        *([",\n".join(parameters), f"  ) {cell.name} ("] if parameters else []),
        ",\n".join(ports),
        "  );",
    ]


def _joined(cell: Cell, signal: str) -> str:
    """A signal of all outputs, the first one in the low bit."""
    names = [f"{stream.name}_{signal}" for stream in reversed(cell.outputs)]
    return names[0] if len(names) == 1 else "{" + ", ".join(names) + "}"


def _memory_file(cell: Cell, parameter: str) -> str:
    return f"memories/{cell.name}_{parameter.lower()}.hex"


def hexadecimal(memory: Memory) -> str:
    """The file that `$readmemh` reads: a word a line, in the order of addresses."""
    words = np.asarray(memory.words)
    rows = words.reshape(-1, 1) if words.ndim == 1 else words
    digits, mask = -(-memory.bits * rows.shape[1] // 4), (1 << memory.bits) - 1
    lines = []
    for row in rows.tolist():
        packed = 0
        for number in reversed(row):
            packed = packed << memory.bits | (int(number) & mask)
        lines.append(f"{packed:0{digits}x}\n")
    return "".join(lines)


def sources(netlist: Netlist) -> dict[str, str]:
    """The text of every module that the design instantiates, directly or not.

    A module that is not in the library's `rtl/` lies beside the Python file of its block.
    """
    folders = list(dict.fromkeys([RTL, *(cell.home for cell in netlist.cells if cell.home is not None)]))
    found: dict[str, str] = {}
    waiting = [cell.instance.module for cell in netlist.cells]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        file = next((folder / f"{name}.sv" for folder in folders if (folder / f"{name}.sv").exists()), None)
        if file is None:
            raise GraphError(f"the module {name} has no file", f"rtl/{name}.sv")
        found[name] = file.read_text(encoding="utf-8")
        waiting += _used(found[name], folders)
    return found


def _used(source: str, folders: Iterable[Path]) -> list[str]:
    """Modules that a source instantiates, and packages that it names, of those that there are files for."""
    plain = re.sub(r"//.*", "", source)
    names = re.findall(r"^\s*(?:\w+\s*:\s*)?(\w+)\s*(?:#\s*\(|\w+\s*\()", plain, re.MULTILINE)
    names += re.findall(r"\b(\w+)::", plain)
    names += re.findall(r"\bbegin\b(?:\s*:\s*\w+)?\s*(\w+)\s*#\s*\(", plain)
    return [name for name in dict.fromkeys(names) if any((folder / f"{name}.sv").exists() for folder in folders)]
