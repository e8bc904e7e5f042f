from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from planish.record import Run
from planish.report.terminal import summary
from tests.report import sample


def printed(run: Run, width: int = 80) -> str:
    console = Console(width=width, color_system=None, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(summary(run))
    return "".join(line.rstrip() + "\n" for line in console.export_text().splitlines())


def test_the_summary_is_as_agreed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = sample.write(Path("runs/minilm"))
    run.write("report.html", "")
    text = printed(run)
    assert text == (Path(__file__).parent / "summary.txt").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 11


@pytest.mark.parametrize("stop", [0, 1, 30, 850])
def test_an_interrupted_run_says_what_is_missing(tmp_path: Path, stop: int) -> None:
    text = printed(sample.write(tmp_path, stop_after=stop))
    assert "not complete: missing" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_a_model_name_is_text_not_markup(tmp_path: Path) -> None:
    assert "[bold]x[/bold]" in printed(sample.write(tmp_path, name="[bold]x[/bold]"))
