"""Every module of the library, by itself and with its own parameters, through pyslang."""

from __future__ import annotations

from pathlib import Path

import pytest

from planish.targets.fpga.streamed.emit import RTL
from tests.support import require_package

MODULES = sorted(file.stem for file in RTL.glob("*.sv"))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_no_warnings(module: str, capfd: pytest.CaptureFixture[str]) -> None:
    require_package("pyslang")
    from pyslang.driver import Driver

    driver = Driver()
    driver.addStandardArgs()
    assert driver.parseCommandLine(f'slang --top {module} -y "{RTL}" "{RTL / module}.sv"')
    assert driver.processOptions()
    assert driver.parseAllSources()
    compilation = driver.createCompilation()
    driver.reportCompilation(compilation, True)
    assert driver.reportDiagnostics(True)
    said = capfd.readouterr()
    assert "warning" not in said.out + said.err, said


@pytest.mark.parametrize("module", MODULES)
def test_a_module_begins_by_saying_what_it_does(module: str) -> None:
    header = Path(RTL / f"{module}.sv").read_text(encoding="utf-8").split("\nmodule ")[0]
    for entry in ("// Ports", "// Latency", "// Interval", "// Parameters"):
        assert entry in header, entry
