"""Cold start and peak memory are those of a process of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.support import require
from torch import nn

import planish
from planish.bench import start
from planish.errors import DataError, OptionError


@pytest.mark.long
def test_an_artifact_starts_and_answers(tmp_path: Path) -> None:
    require("openvino")
    model = nn.Sequential(nn.Linear(2048, 4096), nn.ReLU(), nn.Linear(4096, 2048)).eval()
    x = torch.randn(2, 2048)
    artifact = planish.build(planish.capture(model, (x,)), planish.Cpu(engine="openvino", seconds=0.1))
    artifact.save(tmp_path / "artifact")
    held = torch.ones(50_000_000)  # 200 MB of this process, which are not the artifact's
    [(cold, peak)] = start({artifact.label: tmp_path / "artifact"}, (x,), times=1)
    assert held.sum() > 0
    assert (cold.name, cold.unit, cold.subject) == ("cold_start", "s", "openvino fp32")
    assert 0.1 < cold.value < 120
    weights = 4 * 2 * 2048 * 4096
    assert weights < peak.value < weights + 300e6


def test_what_cannot_start(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"is no artifact|no such file"):
        next(start({"a": tmp_path / "nothing"}, (torch.ones(1),), times=1))
    with pytest.raises(DataError, match="not a tensor"):
        next(start({"a": tmp_path}, (3,)))  # type: ignore[arg-type]
