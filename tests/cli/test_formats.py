"""`planish formats`: the list, the codes of one, and what several lose."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from planish.cli import main
from planish.cli.console import console
from planish.formats import FORMATS


def run(capsys, monkeypatch, *words: str) -> str:
    """What the command prints, in a wide terminal."""
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setitem(vars(console), "rich", Console(highlight=False))
    with pytest.raises(SystemExit) as caught:
        main(["formats", *words])
    out = capsys.readouterr()
    assert not caught.value.code, out.err
    return out.out


def refuse(capsys, *words: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["formats", *words])
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_the_list_names_every_format_with_its_source(capsys, monkeypatch):
    lines = run(capsys, monkeypatch).splitlines()
    listed = {line.split()[0]: line for line in lines if line.strip()}
    assert set(FORMATS) <= set(listed)
    assert "4.25" in listed["mxfp4"]
    assert "OCP MX 1.0" in listed["mxfp4"]
    assert "-448 to 448" in listed["e4m3"]


def test_every_code_of_e4m3_with_the_number_of_ml_dtypes(capsys, monkeypatch):
    lines = run(capsys, monkeypatch, "show", "e4m3").splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("code") and "number" in line)
    words = " ".join(lines[first + 1 : -2]).split()
    shown = {int("".join(words[at : at + 3]), 2): float(words[at + 3]) for at in range(0, len(words), 4)}
    wanted = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float64)
    assert shown.keys() == set(range(256))
    assert np.array_equal([shown[code] for code in range(256)], wanted, equal_nan=True)


def test_integers_are_shown_in_twos_complement(capsys, monkeypatch):
    words = run(capsys, monkeypatch, "show", "int3").split()
    assert words[words.index("111") + 1] == "-1"
    assert words[words.index("011") + 1] == "3"


def test_wide_formats_are_not_listed(capsys, monkeypatch):
    assert "too many to list" in run(capsys, monkeypatch, "show", "bfloat16")


def test_compare_on_a_distribution(capsys, monkeypatch):
    lines = run(capsys, monkeypatch, "compare", "mxfp4", "nvfp4", "int8", "--on", "normal").splitlines()
    sqnr = {line.split()[0]: float(line.split()[2]) for line in lines[2:5]}
    assert sqnr["mxfp4"] < sqnr["nvfp4"] < sqnr["int8"]
    assert sum("█" in line for line in lines) == 3


@pytest.mark.parametrize("shape", ["laplace", "uniform", "student"])
def test_the_other_distributions(capsys, monkeypatch, shape):
    assert shape in run(capsys, monkeypatch, "compare", "int8", "--on", shape)


def test_compare_on_files_and_models(capsys, monkeypatch, tmp_path):
    x = torch.randn(8, 32)
    np.save(tmp_path / "x.npy", x.numpy())
    save_file({"fc.weight": x}, tmp_path / "x.safetensors")
    by_file = run(capsys, monkeypatch, "compare", "int4", "--on", str(tmp_path / "x.npy"))
    by_name = run(capsys, monkeypatch, "compare", "int4", "--on", f"{tmp_path / 'x.safetensors'}:fc.weight")
    assert "256 numbers" in by_file
    assert f"{tmp_path / 'x.safetensors'}:fc.weight (8 × 32)" in by_name
    assert by_file.splitlines()[2] == by_name.splitlines()[2]
    assert "numbers of mlp:" in run(capsys, monkeypatch, "compare", "int4", "--on", "mlp:layers.0")


def test_bad_input(capsys, tmp_path):
    assert "mxfp4" in refuse(capsys, "show", "mxpf4")
    assert "normal" in refuse(capsys, "compare", "int8", "--on", "normall")
    assert "no file" in refuse(capsys, "compare", "int8", "--on", str(tmp_path / "x.npy"))
    (tmp_path / "bad.npy").write_bytes(b"not an array")
    assert "cannot be read" in refuse(capsys, "compare", "int8", "--on", str(tmp_path / "bad.npy"))
    np.save(tmp_path / "objects.npy", np.array([object()]), allow_pickle=True)
    assert "cannot be read" in refuse(capsys, "compare", "int8", "--on", str(tmp_path / "objects.npy"))
    save_file({"fc.weight": torch.ones(2)}, tmp_path / "x.safetensors")
    assert "fc.weight" in refuse(capsys, "compare", "int8", "--on", f"{tmp_path / 'x.safetensors'}:fc.weigth")
    assert "tensor" in refuse(capsys, "compare", "int8", "--on", "mlp:nothing")
