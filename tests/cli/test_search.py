"""`planish search`, `planish worker`, `planish strategies`."""

from __future__ import annotations

import json

import pytest

from planish.cli import main

SPACE = """
[[step]]
pass = "quantize"
weights = { each = ["int3", "int8"] }

[search]
model = "MODEL"
maximize = "mean_cosine"
minimize = "bits"
strategy = "grid"
"""
MODEL = """
import torch
from torch import nn
import planish
from planish.automl import choose

def net(width=choose(4, 8)):
    torch.manual_seed(0)
    act = nn.ReLU() if choose("relu", "tanh", name="act") == "relu" else nn.Tanh()
    model = nn.Sequential(nn.Linear(6, width), act, nn.Linear(width, 3))
    data = [((torch.randn(5, 6),), {}) for _ in range(2)]
    roles = dict.fromkeys(("calibration", "validation", "evaluation"), data)
    return planish.Task(model, (torch.randn(2, 6),), metric="mean_cosine", dynamic={"input": {0: "batch"}}, **roles)

def fixed():
    return net(8)
"""


@pytest.fixture
def space(tmp_path, monkeypatch):
    """A space file beside a model file, in the folder where we are."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "space.toml").write_text(SPACE.replace("MODEL", "model.py:net"))
    return tmp_path


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(words)
    return int(end.value.code or 0)


def test_a_space_is_described(space, capsys):
    assert run("search", "space.toml", "--describe") == 0
    said = capsys.readouterr().out
    assert "4 decisions, 16 points" in said
    assert "quantize.weights[0]" in said
    assert "width" in said


def test_a_search_leaves_recipes_that_compress(space, capsys):
    assert run("search", "space.toml", "--budget", "16 trials", "--run", "runs/a") == 0
    said = capsys.readouterr().out
    assert "best of 16 trials" in said
    told = json.loads((space / "runs/a/search.json").read_text())
    assert told["size"] == 16
    recipe = (space / "runs/a/recipe.toml").read_text()
    assert "[arguments]" in recipe
    assert run("compress", "model.py:net", "--recipe", "runs/a/recipe.toml", "--dry-run") == 0
    assert "quantize" in capsys.readouterr().out
    assert run("search", "space.toml", "--budget", "16 trials", "--run", "runs/a") == 0  # nothing is left to do
    assert len((space / "runs/a/trials.jsonl").read_text().splitlines()) == 16
    assert run("report", "runs/a") == 0


@pytest.mark.long
def test_more_seeds_are_searches_of_their_own(space, capsys):
    words = ("space.toml", "--model", "model.py:fixed", "--strategy", "random", "--budget", "2 trials", "--run", "out")
    assert run("search", *words, "--seeds", "3") == 0
    found = [space / "out" / part / "trials.jsonl" for part in ("", "seeds/1", "seeds/2")]
    assert [len(file.read_text().splitlines()) for file in found] == [2, 2, 2]
    assert "what 3 seeds reached" in (space / "out" / "report.html").read_text()
    assert run("search", *words, "--seeds", "3", "--storage", "sqlite:///x.db") == 2
    assert "a storage keeps one search" in capsys.readouterr().err


def test_a_worker_joins_with_the_user_s_word(space, capsys):
    assert run("search", "space.toml", "--budget", "2 trials", "--run", "runs/a") == 0
    url = "sqlite:///runs/a/search.db"
    assert run("worker", "--storage", url) == 2
    assert "--trust" in capsys.readouterr().err
    assert run("worker", "--storage", url, "--trust", "--budget", "4 trials") == 0
    assert "trial 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.toml"], "cannot read the space"),
        (["space.toml", "--minimize", "beauty"], "unknown objective 'beauty'"),
        (["space.toml", "--strategy", "magic"], "unknown strategy 'magic'"),
        (["space.toml", "--budget", "forever"], "cannot read the budget"),
        (["space.toml", "--subject-to", "bits < 0"], "nothing holds all constraints"),
        (["space.toml", "--model", "mlp2"], "unknown model"),
    ],
)
def test_bad_input_is_one_sentence(space, capsys, words, said):
    assert run("search", *words, "--run", "runs/b") == 2
    assert said in capsys.readouterr().err


def test_an_unknown_word_in_the_file(space, capsys):
    (space / "space.toml").write_text(SPACE.replace("strategy =", "strategie ="))
    assert run("search", "space.toml") == 2
    assert "strategie" in capsys.readouterr().err


def test_strategies_are_listed(capsys):
    assert run("strategies") == 0
    said = capsys.readouterr().out
    assert "auto" in said
    assert "gdas" in said
