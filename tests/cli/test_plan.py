"""`planish plan`."""

from __future__ import annotations

from pathlib import Path

import pytest

from planish.cli import main
from planish.cli.plan import parse_bytes
from planish.errors import OptionError
from planish.record import Run
from planish.training.parallel import Plan

MODEL = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(48, 48), nn.ReLU()) for _ in range(4)]
    return nn.Sequential(nn.Linear(8, 48), *layers, nn.Linear(48, 4)), (torch.randn(2, 8),)
"""
HARDWARE = """
name = "a toy"
memory = MEMORY
bandwidth = 1e10
source = "nowhere"
[peak]
fp32 = 1e9
bf16 = 1e9
[node]
devices = 8
bandwidth = 1e9
latency = 1e-9
[network]
bandwidth = 1e8
latency = 1e-9
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A model and a small machine, in the folder where we are."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(MODEL)
    (tmp_path / "toy.toml").write_text(HARDWARE.replace("MEMORY", "1e9"))
    (tmp_path / "none.toml").write_text(HARDWARE.replace("MEMORY", "1e9").replace("bf16 = 1e9\n", ""))
    (tmp_path / "tiny.toml").write_text(HARDWARE.replace("MEMORY", "2e4"))
    return tmp_path


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(words)
    return int(ended.value.code or 0)


def test_a_plan_its_reasons_and_what_to_type_next(folder, capsys) -> None:
    assert run("plan", "net.py:net", "--devices", "4", "--hardware", "toy.toml", "--explain") == 0
    said = capsys.readouterr().out
    made = Plan.read(folder / "runs" / "net" / "plan.toml")
    assert made.devices == 4
    assert str(made) in said
    assert "all figures are modeled" in said
    assert "planish train net.py:net --plan runs/net/plan.toml" in said
    rows = Run(folder / "runs" / "net").measurements()
    assert {row.source for row in rows} == {"modeled"}
    assert {row.stage for row in rows} == {"plan"}
    assert sum(row.name == "device_memory" for row in rows) == made.pp
    best, *others = [row for row in rows if row.name == "step_time"]
    assert best.details["plan"] == str(made)
    assert all(row.details["why"] for row in others)


def test_planning_again_replaces_the_plan(folder) -> None:
    for devices in ("4", "2"):
        assert run("plan", "net.py:net", "--devices", devices, "--hardware", "toy.toml", "--out", "p.toml") == 0
    assert Plan.read(folder / "p.toml").devices == 2
    assert (
        sum(row.subject == "best" for row in Run(folder / "runs" / "net").measurements() if row.name == "step_time")
        == 1
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--devices", "4", "--hardware", "h100"], "unknown hardware 'h100'"),
        (["--hardware", "toy.toml"], "give a number of devices or a mesh"),
        (["--mesh", "2by2", "--hardware", "toy.toml"], "not a mesh: '2by2'"),
        (["--mesh", "7", "--hardware", "toy.toml", "--batch", "4"], "7 stages, and the model has 6 blocks"),
        (["--mesh", "7", "--hardware", "toy.toml", "--batch", "4"], "7 divides no axis of a parameter"),
        (["--devices", "2", "--hardware", "tiny.toml"], "kB more than the 18.8 kB of a device"),
        (["--devices", "2", "--hardware", "toy.toml", "--memory", "much"], "not a size: 'much'"),
        (["--devices", "2", "--hardware", "toy.toml", "--precision", "fp7"], "unknown precision 'fp7'"),
        (["--devices", "2", "--hardware", "none.toml", "--precision", "bf16"], "a toy has no peak for bf16"),
    ],
)
def test_bad_input_is_said_at_the_door(folder, capsys, words, said) -> None:
    assert run("plan", "net.py:net", *words) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (folder / "runs" / "net" / "plan.toml").exists()


def test_sizes() -> None:
    assert [parse_bytes(text) for text in ("80GB", "80 GiB", "1.5e9B")] == [80e9, 80 * 2**30, 1.5e9]
    with pytest.raises(OptionError):
        parse_bytes("80 apples")
