"""What yosys leaves on the carry chains of a netlist, and nextpnr would spend slices on.

nextpnr puts half a slice pair (two TRELLIS_COMB) behind each chain whose last carry is on a wire, read or not, and in
front of each whose first carry is on a wire, constant or not. An `x` in the netlist means that nothing is connected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any


def trim(netlist: Mapping[str, Any]) -> int:
    """Take carries off their wires that nobody reads, or that the first place does not look at.

    Args:
        netlist: As `write_json` writes it; changed in place.

    Returns:
        How many.
    """
    trimmed = 0
    for module in netlist["modules"].values():
        cells = module["cells"].values()
        read = Counter(bit for port in module["ports"].values() for bit in port["bits"])
        for cell in cells:
            for port, bits in cell["connections"].items():
                if cell["port_directions"][port] == "input":
                    read.update(bits)
        for cell in cells:
            if cell["type"] != "CCU2C":
                continue
            wires = cell["connections"]
            unread = [port for port in ("COUT",) if wires[port] != ["x"] and not read[wires[port][0]]]
            # with C and D high the place adds the top four bits of its table: zeros hand no carry on
            blind = wires["C0"] == wires["D0"] == ["1"] and str(cell["parameters"]["INIT0"]).startswith("0000")
            if blind and wires["CIN"] == ["0"] and not read[wires["S0"][0]]:
                unread.append("CIN")
            for port in unread:
                wires[port] = ["x"]
            trimmed += len(unread)
    return trimmed
