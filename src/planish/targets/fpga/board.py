"""Which device, in which package, at which clock."""

from __future__ import annotations

import re
from dataclasses import dataclass

from planish.errors import OptionError
from planish.targets.fpga.toolchain.devices import Device, device, speed_grade

_UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}


@dataclass(frozen=True)
class Board:
    """What a design is placed on.

    Attributes:
        device: Name of the device.
        clock: MHz.
        speed: Speed grade; 6 is the slowest.
        package: Of the device; None: its largest.

    Raises:
        OptionError: When made: a device, package, speed grade or clock that there is not.
    """

    device: str
    clock: float
    speed: int = 6
    package: str | None = None

    def __post_init__(self) -> None:
        self.chip.package(self.package)
        speed_grade(self.speed)
        if not 0 < self.clock < 1000:
            raise OptionError(f"a clock is from 1 to 1000 MHz, not {self.clock:g} MHz", "clock", 'clock="100MHz"')

    @property
    def chip(self) -> Device:
        """The device."""
        return device(self.device)


def megahertz(text: str | float) -> float:
    """The number that a text such as "100MHz" or "0.1 GHz" stands for; a plain number is in MHz.

    Raises:
        OptionError: It is no frequency.
    """
    if isinstance(text, str) and not re.fullmatch(r"[\d.]+", text.strip()):
        return quantity(text, "Hz", "clock", "100MHz") / 1e6
    return quantity(text, "", "clock", "100MHz")


def quantity(text: str | float, unit: str, where: str, example: str) -> float:
    """The number that a text such as "50k" or "2.5M/s" stands for.

    Args:
        text: A number, and after it k, M or G, and the unit.
        unit: May stand at the end.
        where: The option.
        example: Of what would be right.

    Raises:
        OptionError: It is no such text, or not above 0.
    """
    found = re.fullmatch(rf"\s*(\d*\.?\d+(?:e[+-]?\d+)?)\s*([kMG]?)\s*(?:{re.escape(unit)})?\s*", str(text))
    value = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if value <= 0:
        raise OptionError(f"{text!r} is not understood", where, f'{where}="{example}"')
    return value
