from __future__ import annotations

from pathlib import Path

import pytest

from planish.errors import OptionError, UnknownName
from planish.training.planning.hardware import FOLDER, Cluster, Hardware, known, parse_mesh


@pytest.mark.parametrize("name", [name for name in known() if name != "cpu"])
def test_every_file_reads_and_says_where_its_numbers_are_from(name: str) -> None:
    found = Hardware.named(name)
    assert found.key == name
    assert found.source.startswith("https://")
    assert {"fp32", "bf16", "fp16"} <= found.peak.keys()
    assert found.node.bandwidth > found.network.bandwidth
    assert found.memory > 1e9


def test_this_machine_is_measured() -> None:
    found = Hardware.named("cpu")
    assert found.peak["fp32"] > 1e9
    assert found.memory > 1e8


def test_an_unknown_name_answers_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="did you mean 'h100-sxm'"):
        Hardware.named("h100-sxn")


def test_a_file_of_the_user(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text((FOLDER / "h100-sxm.toml").read_text().replace("80e9", "96e9"))
    assert Hardware.named(str(file)).memory == 96e9
    file.write_text("name = 'half'\n")
    with pytest.raises(OptionError, match="cannot read the hardware"):
        Hardware.named(str(file))


def test_a_cluster_is_a_number_or_a_mesh() -> None:
    assert Cluster.of("a100-sxm-80gb", mesh=parse_mesh("16x8x8")).devices == 1024
    for devices, mesh in ((None, None), (8, (8,)), (0, None), (None, (4, 0))):
        with pytest.raises(OptionError):
            Cluster.of("a100-sxm-80gb", devices, mesh)
    with pytest.raises(OptionError, match="not a mesh: '8by8'"):
        parse_mesh("8by8")
