from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planish.errors import OptionError
from planish.holes import Template, choose, fill
from planish.training.parallel import Plan

counts = st.integers(1, 8)


@given(dp=counts, fsdp=counts, tp=counts, bits=st.sampled_from(["fp32", "bf16"]), micro=st.integers(1, 32))
def test_a_plan_is_data(
    tmp_path_factory: pytest.TempPathFactory, dp: int, fsdp: int, tp: int, bits: str, micro: int
) -> None:
    plan = Plan(dp=dp, fsdp=fsdp, tp=tp, precision=bits, microbatches=micro, shards={"a.*": 1})  # type: ignore[arg-type]
    file = tmp_path_factory.getbasetemp() / "plan.toml"
    plan.write(file)
    assert Plan.read(file) == plan
    assert plan.devices == dp * fsdp * tp
    assert plan.shares == dp * fsdp


def test_only_what_is_said_is_written(tmp_path: Path) -> None:
    Plan(tp=2, pp=4, microbatches=8).write(tmp_path / "plan.toml")
    assert (tmp_path / "plan.toml").read_text() == "tp = 2\npp = 4\nmicrobatches = 8\n"


def test_holes() -> None:
    template = Plan(fsdp=choose(1, 2, 4), tp=2)
    assert isinstance(template, Template)
    assert fill(template, lambda hole, _: hole.options[2]) == Plan(fsdp=4, tp=2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dp": 0}, "dp is a count"),
        ({"tp": True}, "tp is a count"),
        ({"schedule": "gipe"}, "unknown schedule"),
        ({"precision": "fp8"}, "unknown precision"),
        ({"pp": 4, "microbatches": 2}, "leave some of 4 stages idle"),
        ({"pp": 4, "microbatches": 6, "schedule": "interleaved"}, "multiple of 4"),
        ({"pp": 2, "microbatches": 2, "stages": ("a", "b")}, "make 3 stages, not 2"),
    ],
)
def test_what_cannot_be(options: dict[str, object], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        Plan(**options)  # type: ignore[arg-type]


def test_a_file_that_is_no_plan(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cannot read the plan"):
        Plan.read(tmp_path / "none.toml")
    (tmp_path / "plan.toml").write_text("fdsp = 2\n")
    with pytest.raises(OptionError, match="did you mean 'fsdp'"):
        Plan.read(tmp_path / "plan.toml")
    (tmp_path / "plan.toml").write_text("fsdp = \n")
    with pytest.raises(OptionError, match="cannot read the plan"):
        Plan.read(tmp_path / "plan.toml")
