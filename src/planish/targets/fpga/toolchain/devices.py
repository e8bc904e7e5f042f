"""The devices that can be placed and routed: what they hold, and a model of the energy that a design takes on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from planish.errors import OptionError, UnknownName, UserError
from planish.record import Measurement
from planish.targets.fpga.toolchain.utilization import Utilization

SPEEDS = (6, 7, 8)
"""Speed grades; 6 is the slowest."""
VOLTS = 1.1
"""Of the core."""


@dataclass(frozen=True)
class Device:
    """An ECP5.

    Attributes:
        name: As users write it.
        option: As nextpnr writes it.
        lut: LUT4-equivalents; there are as many flip-flops.
        dsp: Multipliers of 18 by 18 bits.
        bram: Block memories of 18 kbit.
        packages: Pins for signals of each package.
        standby: Typical core current when nothing switches (A); FPGA-DS-02012, supply current (standby).
    """

    name: str
    option: str
    lut: int
    dsp: int
    bram: int
    packages: Mapping[str, int]
    standby: float

    def capacity(self) -> dict[str, int]:
        """What it holds, by the names of `Utilization`."""
        return {"lut": self.lut, "ff": self.lut, "dsp": self.dsp, "bram": self.bram}

    def lacking(self, used: Utilization) -> dict[str, tuple[int, int]]:
        """What a design needs and the device has, of each resource that it has too little of."""
        needs = {name: (getattr(used, name), has) for name, has in self.capacity().items()}
        return {name: pair for name, pair in needs.items() if pair[0] > pair[1]}

    def require(self, used: Utilization) -> None:
        """Refuse a design that is too large.

        Raises:
            UserError: It is; says by how much, and which device would hold it.
        """
        lacking = self.lacking(used)
        if not lacking:
            return
        told = [f"{need:,} {name.upper()} of {has:,} ({need / has:.0%})" for name, (need, has) in lacking.items()]
        larger = [each.name for each in devices.values() if not each.lacking(used)]
        hint = "a smaller fold, or fewer bits" + (f", or {larger[0]}" if larger else "")
        raise UserError(f"the design needs {', '.join(told)}", self.name, hint)

    def package(self, name: str | None = None) -> str:
        """A package's name; the largest one where none is given.

        Raises:
            UnknownName: The device does not come in it.
        """
        if name is None:
            return max(self.packages, key=self.packages.__getitem__)
        if name not in self.packages:
            raise UnknownName("package", name, self.packages, self.name)
        return name

    def power(self, used: Utilization, clock: float) -> list[Measurement]:
        """Modeled power: nothing of it is measured, and it knows no data; only its order of magnitude is right.

        Static: `standby` x 1.1 V. Dynamic, a cycle: 5.9 pJ for the 8 LUTs and flip-flops of a Virtex-II CLB with its
        wires and clock at the activity of typical designs (Shang, Kaviani and Bathala, FPGA 2002; 150 nm, 1.5 V); an
        18-bit product 1 pJ and a read of 36 bits 5.6 pJ (from the 32-bit product and the 64-bit read of 8 kB of
        Horowitz, ISSCC 2014; 45 nm, 0.9 V, a product growing with the square of its bits, a read with its bits); all
        brought to 40 nm and 1.1 V as capacitance x voltage squared.

        Args:
            used: The design.
            clock: MHz.
        """
        virtex = 40 / 150 * (VOLTS / 1.5) ** 2
        horowitz = 40 / 45 * (VOLTS / 0.9) ** 2
        logic = 5.9 / 8 * virtex * max(used.lut, used.ff)
        cycle = logic + horowitz * (1.0 * used.dsp + 5.6 * used.bram)  # pJ
        details = {"device": self.name, "MHz": clock}
        return [
            Measurement("static power", self.standby * VOLTS, "W", "modeled", details=details),
            Measurement("dynamic power", cycle * clock * 1e-6, "W", "modeled", details=details),
        ]

    def energy(self, used: Utilization, clock: float, interval: float) -> Measurement:
        """Modeled energy of a sample: the power of `power` for as long as a sample keeps the design.

        Args:
            used: The design.
            clock: MHz.
            interval: Cycles from a sample to the next.
        """
        watts = sum(row.value for row in self.power(used, clock))
        details = {"device": self.name, "MHz": clock, "interval": interval}
        return Measurement("energy", watts * interval / clock * 1e-6, "J", "modeled", details=details)


# FPGA-DS-02012, table 1.1; pins and LUTs as nextpnr counts them (some of the data sheet's round numbers are larger).
_SMALL = {"TQFP144": 98, "CSFBGA285": 118, "CABGA256": 197}
devices: Mapping[str, Device] = {
    each.name: each
    for each in (
        Device("ecp5-25k", "--25k", 24_288, 28, 56, {**_SMALL, "CABGA381": 197}, 0.077),
        Device("ecp5-45k", "--45k", 43_848, 72, 108, {**_SMALL, "CABGA381": 203, "CABGA554": 245}, 0.116),
        Device(
            "ecp5-85k",
            "--85k",
            83_640,
            156,
            208,
            {"CSFBGA285": 118, "CABGA381": 205, "CABGA554": 259, "CABGA756": 365},
            0.212,
        ),
    )
}
"""From the smallest to the largest."""


def device(name: str) -> Device:
    """The device of that name.

    Raises:
        UnknownName: There is none.
    """
    if name not in devices:
        raise UnknownName("device", name, devices)
    return devices[name]


def speed_grade(speed: int) -> int:
    """A speed grade that exists.

    Raises:
        OptionError: It does not.
    """
    if speed not in SPEEDS:
        raise OptionError(f"there is no speed grade {speed}", "speed", f"one of {', '.join(map(str, SPEEDS))}")
    return speed
