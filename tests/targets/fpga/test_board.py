"""Options of the target are refused at the door."""

from __future__ import annotations

import pytest

from planish.errors import OptionError, UnknownName
from planish.targets.fpga.board import Board, megahertz, quantity
from planish.targets.fpga.target import Fpga


def test_frequencies() -> None:
    assert megahertz("100MHz") == megahertz(100) == megahertz("0.1 GHz") == megahertz("100") == 100
    assert quantity("50k", "/s", "throughput", "50k") == quantity("0.05M/s", "/s", "throughput", "50k") == 50e3
    for text in ("fast", "", "-1MHz", "0"):
        with pytest.raises(OptionError, match="is not understood"):
            megahertz(text)


def test_options() -> None:
    assert Fpga(throughput="1.25M").interval == 80
    assert Fpga(budget={"lut": 2500, "dsp": 26}).limits["dsp"] == 26
    assert Fpga().board == Board("ecp5-85k", 100.0)
    with pytest.raises(UnknownName, match="ecp5-85k"):
        Fpga(device="ecp5-86k")
    with pytest.raises(OptionError, match="unknown mode 'folded'"):
        Fpga(mode="folded")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="unknown resource 'luts'"):
        Fpga(budget={"luts": 3})
    with pytest.raises(OptionError, match="more than one in each cycle"):
        Fpga(throughput="1G")
    with pytest.raises(OptionError, match="speed"):
        Fpga(speed=9)
    with pytest.raises(UnknownName, match="CABGA381"):
        Fpga(package="CABGA382")
