"""What the commands print, and how fast the first word comes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from planish.cli import app, main
from planish.record import Run

COMMANDS = (
    "demo",
    "analyze",
    "compress",
    "build",
    "bench",
    "search",
    "worker",
    "report",
    "doctor",
    "models",
    "formats",
    "passes",
    "recipes",
    "strategies",
    "targets",
    "plan",
    "train",
    "federate",
    "launch",
)


def _run(*words: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(words)
    return int(stop.value.code or 0)


def test_help_teaches_by_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("--help") == 0
    said = capsys.readouterr().out
    assert "planish demo" in said
    assert "planish compress model.py:make" in said
    assert all(line == line.rstrip() or len(line) <= 80 for line in said.splitlines())


def test_the_commands_are_those_of_the_design() -> None:
    commands = [command.callback.__name__ for command in app.registered_commands if command.callback]
    assert {*commands, *(group.name for group in app.registered_groups)} == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(command, "--help") == 0
    assert f"planish {command}" in capsys.readouterr().out


IMPORTED = """
import sys
from planish.cli import main
try:
    main([WORD])
except SystemExit:
    print(*sorted(name for name in sys.modules), file=sys.stderr)
"""


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_help_imports_the_command_line_and_nothing_else(word: str) -> None:
    """Imports are all that it costs: none but typer's and our own parsing, so that it takes a fifth of a second."""
    code = IMPORTED.replace("WORD", repr(word))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = done.stderr.splitlines()[-1].split()
    ours = {name for name in names if name.startswith("planish")}
    assert ours <= {"planish", "planish.errors", "planish.record", *(name for name in ours if "planish.cli" in name)}
    heads = {name.partition(".")[0] for name in names if not name.startswith("_")}
    foreign = heads - set(sys.stdlib_module_names)
    assert foreign <= {"planish", "typer", "click", "shellingham", "annotated_doc", "typing_extensions"}


@pytest.mark.parametrize(
    ("command", "told"),
    [("models", "minilm"), ("formats", "mxfp4"), ("passes", "quantize"), ("recipes", "w8a8"), ("targets", "cpu")],
)
def test_lists(command: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(command) == 0
    assert told in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("--version") == 0
    assert capsys.readouterr().out.startswith("planish 0.")


def test_analyze_prints_a_table_and_leaves_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _run("analyze", "mlp") == 0
    assert "MACs" in capsys.readouterr().out
    assert Path("runs/mlp/report.html").exists()


def test_a_second_run_says_what_it_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("planish.bench.start", lambda *_, **__: iter([()] * 3))
    words = ("compress", "mlp", "--engine", "onnxruntime", "--batch", "2")
    assert _run(*words) == 0
    assert "kept from before" not in capsys.readouterr().out
    assert _run(*words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "kept from before: analysis, quality of the original, sensitivity, recipe, build, quality, start" in said
    assert "batch 2" in said
    assert _run("report", "runs/mlp") == 0
    assert "batch 2" in capsys.readouterr().out


def test_a_dry_run_says_what_it_would_touch_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _run("compress", "mlp", "--recipe", "w8", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "1. quantize" in said
    assert "weight to int8@channel0" in said
    assert "of weights" in said
    assert not list(tmp_path.iterdir())


def test_a_batch_is_that_of_the_analysis(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for batch in (1, 8):
        assert _run("analyze", "mlp", "--batch", str(batch)) == 0
        assert f"batch = {batch}" in capsys.readouterr().out
        rows = Run("runs/mlp").measurements()
        assert sum(row.value for row in rows if row.name == "macs") == batch * (64 * 128 + 128 * 64 + 64 * 10)


def test_the_doctor_says_what_there_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert _run("doctor") == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("python 3", "onnxruntime", "gemm f32", "memory", "GB/s"))
