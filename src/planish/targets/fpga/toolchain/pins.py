"""Designs with more port bits than a package has pins: placed and timed between two shift registers.

What is behind the pins then tells area and timing only, so no bitstream is made of it.
"""

from __future__ import annotations

from typing import Any

# yosys puts a space after a string that looks like a number
_REGISTER = {
    "hide_name": 0,
    "type": "TRELLIS_FF",
    "parameters": {"CEMUX": "1 ", "CLKMUX": "CLK", "GSR": "DISABLED", "LSRMUX": "LSR", "REGSET": "RESET"},
    "port_directions": {"CLK": "input", "DI": "input", "LSR": "input", "Q": "output"},
}
SHIFT = "pins"
"""Prefix of the names of what is added."""


def behind_registers(module: dict[str, Any], clock: str = "clk") -> dict[str, Any]:
    """A netlist whose inputs come from a shift register and whose outputs are each kept in one, but for the clock.

    Args:
        module: A flat ECP5 netlist, as yosys writes it.
        clock: Port of the clock.
    """
    ports = {name: port for name, port in module["ports"].items() if name != clock}
    inputs = [bit for port in ports.values() if port["direction"] == "input" for bit in port["bits"]]
    outputs = [bit for port in ports.values() if port["direction"] == "output" for bit in port["bits"]]
    driver = module["ports"][clock]["bits"][0]
    numbers = [bit for cell in module["cells"].values() for bits in cell["connections"].values() for bit in bits]
    free = max(bit for bit in [*numbers, *inputs, *outputs, driver] if isinstance(bit, int)) + 1
    cells, names = dict(module["cells"]), dict(module["netnames"])

    def register(name: str, given: object, made: object) -> None:
        connections = {"CLK": [driver], "DI": [given], "LSR": ["0"], "Q": [made]}
        cells[name] = {**_REGISTER, "attributes": {}, "connections": connections}

    entry, before = free, free
    for place, bit in enumerate(inputs):
        register(f"{SHIFT}_in_{place}", before, bit)
        before = bit
    free += 1
    for place, bit in enumerate(outputs):
        register(f"{SHIFT}_out_{place}", bit, free + place)
    leaving = free + len(outputs) - 1 if outputs else before
    for name, bits in {f"{SHIFT}_in": [entry], f"{SHIFT}_out": [leaving]}.items():
        names[name] = {"hide_name": 0, "bits": bits, "attributes": {}}
    for place in range(len(outputs)):
        names[f"{SHIFT}_kept_{place}"] = {"hide_name": 0, "bits": [free + place], "attributes": {}}
    made_ports = {
        clock: module["ports"][clock],
        f"{SHIFT}_in": {"direction": "input", "bits": [entry]},
        f"{SHIFT}_out": {"direction": "output", "bits": [leaving]},
    }
    return {**module, "ports": made_ports, "cells": cells, "netnames": names}
