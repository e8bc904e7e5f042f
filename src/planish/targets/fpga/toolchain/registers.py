"""Output registers of block memories: yosys leaves them beside the memory, where they cost two thirds of a clock.

A DP16KD gives its word 5.6 ns after the clock without its output register and 1 ns after it with. Blocks therefore read
memories into two registers, of which yosys takes the first; here the second one goes into the cell, too.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

Module = dict[str, Any]
"""A module of a netlist that yosys wrote as JSON."""
_WIDE = 36  # bits of a word that both halves of a memory give together, by the clock of port B


def absorb(module: Module) -> int:
    """Move the registers behind block memories into them, where every bit of a port has one and no other reader.

    Args:
        module: A flat netlist of ECP5 cells, changed in place.

    Returns:
        Ports that got their output register.
    """
    readers = _readers(module)
    moved = 0
    for cell in [each for each in module["cells"].values() if each["type"] == "DP16KD"]:
        widths = (int(cell["parameters"][f"DATA_WIDTH_{port}"], 2) for port in "AB")
        for ports, clock in [("AB", "CLKB")] if _WIDE in widths else [("A", "CLKA"), ("B", "CLKB")]:
            moved += _absorb(module, readers, cell, ports, cell["connections"][clock])
    return moved


def _absorb(
    module: Module, readers: dict[int, list[tuple[str, str]]], cell: Module, ports: str, clock: list[Any]
) -> bool:
    outputs = [
        (name, bits[0])
        for name, bits in cell["connections"].items()
        if name.startswith("DO") and name[2] in ports and readers[bits[0]]
    ]
    registers: dict[str, str] = {}
    enables: set[Any] = set()
    for name, bit in outputs:
        (reader, pin), *others = readers[bit]
        register = module["cells"].get(reader)
        if others or pin not in ("DI", "M") or register is None or not _is_plain(register, clock):
            return False
        registers[name] = reader
        enables.add(register["connections"]["CE"][0] if register["parameters"]["CEMUX"].strip() == "CE" else "1")
    if not registers or len(enables) > 1:
        return False
    for name, register in registers.items():
        cell["connections"][name] = module["cells"].pop(register)["connections"]["Q"]
    for port in ports:
        cell["parameters"][f"REGMODE_{port}"] = "OUTREG"
        cell["connections"][f"OCE{port}"] = list(enables)
    return True


def _is_plain(register: Module, clock: list[Any]) -> bool:
    """Whether a register is of that clock's rising edge, and is never reset."""
    given, parameters = register["connections"], register["parameters"]
    return (
        register["type"] == "TRELLIS_FF"
        and given["CLK"] == clock
        and parameters["CLKMUX"].strip() == "CLK"
        and parameters["CEMUX"].strip() in ("1", "CE")
        and given.get("LSR", ["0"]) == ["0"]
    )


def _readers(module: Module) -> dict[int, list[tuple[str, str]]]:
    """What reads each net: the cell and its pin; the module's own outputs count as cells without a name."""
    readers: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for name, cell in module["cells"].items():
        for pin, bits in cell["connections"].items():
            if cell["port_directions"][pin] == "input":
                for bit in bits:
                    readers[bit].append((name, pin))
    for name, port in module["ports"].items():
        if port["direction"] == "output":
            for bit in port["bits"]:
                readers[bit].append(("", name))
    return readers
