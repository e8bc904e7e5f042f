"""`planish train`: what it leaves, that it goes on, and what it refuses before a process is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from planish.cli import main
from planish.graph import Graph
from planish.record import Run
from planish.training.parallel import Plan


def command(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["train", "mlp", *map(str, words)])
    return int(ended.value.code or 0)


def test_a_trained_graph_and_its_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--epochs", 2, "--run", tmp_path, "--every", 10) == 0
    assert {row.name for row in Run(tmp_path).measurements()} >= {"training_loss", "training_steps", "accuracy"}
    assert Graph.load(tmp_path / "trained.planish").parameter_names
    assert "accuracy" in capsys.readouterr().out
    assert (tmp_path / "report.html").is_file()
    assert command("--epochs", 2, "--run", tmp_path) == 0  # nothing is left to do
    assert command("--epochs", 3, "--run", tmp_path) == 2
    assert "other options" in capsys.readouterr().err
    assert command("--epochs", 1, "--run", tmp_path, "--fresh") == 0


@pytest.mark.parametrize(
    ("plan", "words", "said"),
    [
        (Plan(dp=3), (), "no batch of the data can be dealt out in 3 shares"),
        (Plan(pp=8, microbatches=8), ("--batch-size", 48), "8 stages, and the model has 3 blocks"),
        (Plan(tp=3), (), "no channels of the model can be divided by 3"),
        (Plan(recompute="blocks.*"), (), "no module's path matches 'blocks.*'"),
        (Plan(tp=2, shards={"fc.*": 0}), (), "unknown parameter 'fc.*'"),
        (Plan(), ("--devices", 2), "the plan says how many devices"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_at_the_door(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], plan: Plan, words: tuple[object, ...], said: str
) -> None:
    plan.write(tmp_path / "plan.toml")
    assert command("--plan", tmp_path / "plan.toml", "--run", tmp_path / "run", *words) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.long
def test_processes_of_its_own(tmp_path: Path) -> None:
    assert command("--epochs", 1, "--devices", 2, "--run", tmp_path / "spread") == 0
    assert command("--epochs", 1, "--run", tmp_path / "alone") == 0
    losses = [
        [row.value for row in Run(tmp_path / name).measurements() if row.name == "training_loss"]
        for name in ("spread", "alone")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.long
def test_what_ends_all_processes_is_told_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ("--devices", 2, "--learning-rate", 1e30, "--optimizer", "sgd", "--run", tmp_path)
    assert command(*words) == 2
    assert capfd.readouterr().err.count("the loss is nan") == 1
