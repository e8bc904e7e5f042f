"""Each mistake gives one message that says what, where and what next; nothing in a file is executed."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from planish.cli import main
from planish.record import Run

Cli = Callable[..., tuple[int, str]]
MAKE = """
import torch, planish
def make():
    return torch.nn.Sequential(torch.nn.Linear(4, 4)), (torch.randn(2, 4),)
def raises():
    return 1 / 0
def nothing():
    return 42
def bare():
    return torch.nn.Linear(4, 4)
def wrong_shape():
    return torch.nn.Linear(4, 4), (torch.randn(2, 3),)
def _task(calibration):
    return planish.Task(torch.nn.Linear(4, 4), (torch.randn(2, 4),), calibration=calibration, metric="sqnr")
def no_data():
    return _task(())
def empty():
    return _task(iter(()))
def nan():
    return _task([((torch.full((2, 4), float("nan")),), {})])
def other_shape():
    return _task([((torch.randn(2, 4),), {}), ((torch.randn(2, 5),), {})])
def infinite():
    return _task([((torch.full((2, 4), float("inf")),), {})])
def task():
    return _task([((torch.randn(2, 4),), {})])
def broken_metric():
    def mine(model, data):
        raise RuntimeError("it broke")
    data = [((torch.randn(2, 4),), {})]
    return planish.Task(torch.nn.Linear(4, 4), data[0][0], calibration=data, evaluation=data, metric=mine)
def no_target():
    data = [((torch.randn(2, 4),), {})]
    return planish.Task(torch.nn.Linear(4, 4), data[0][0], calibration=data, evaluation=data, metric="accuracy")
class Branch(torch.nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x
def branch():
    return Branch(), (torch.randn(2, 4),)
class Vanishing:
    def __iter__(self):
        yield (torch.randn(2, 4),), {}
        raise OSError("the disk is gone")
def vanishing():
    return Vanishing()
def at_once():
    class Never:
        def __iter__(self):
            return self
        def __next__(self):
            raise OSError("no disk")
    return Never()
"""


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "m.py").write_text(MAKE)

    def run(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stop:
            main(words)
        captured = capsys.readouterr()
        code = stop.value.code
        return code if isinstance(code, int) else 0, captured.out + captured.err

    return run


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["analyze", "minilmm"], "did you mean 'minilm'"),
        (["analyze", "absent.planish"], "no such file"),
        (["analyze", "absent.pt2", "--trust"], "no such file"),
        (["analyze", "model.onnx"], "later version"),
        (["analyze", "model.keras"], "later version"),
        (["analyze", "./absent/dir"], "no such file or directory"),
        (["analyze", "m.py"], "not a model"),
        (["analyze", "gone.py:make"], "gone.py"),
        (["analyze", "m.py:mkae"], "did you mean 'make'"),
        (["analyze", "m.py:raises"], "ZeroDivisionError"),
        (["analyze", "m.py:nothing"], "returned int"),
        (["analyze", "m.py:bare"], "example inputs"),
        (["analyze", "m.py:wrong_shape"], "(2, 3)"),
        (["compress", "m.py:no_data"], "no data to calibrate"),
        (["compress", "m.py:empty"], "read several times"),
        (["compress", "m.py:nan"], "NaN"),
        (["compress", "m.py:other_shape"], "calibration[1]"),
        (["compress", "m.py:infinite"], "infinity"),
        (["compress", "m.py:no_target"], "the data has none"),
        (["compress", "m.py:broken_metric"], "RuntimeError: it broke"),
        (["compress", "m.py:task", "--data", "m.py:vanishing"], "OSError: the disk is gone"),
        (["compress", "m.py:task", "--data", "m.py:at_once"], "an iterator only once"),
        (["compress", "m.py:task", "--batch", "3"], "batch is fixed"),
        (["compress", "m.py:task", "--threads", "9999"], "cores"),
        (["compress", "m.py:task", "--run", "m.py"], "cannot write the run folder"),
        (["analyze", "m.py:branch"], "torch.cond"),
        (["analyze", ""], "no model is named"),
        (["analyze", "mlp", "--batch", "0"], "--batch"),
        (["compress", "m.py:task", "--target", "cpuu"], "did you mean 'cpu'"),
        (["compress", "m.py:task", "--engine", "openvin"], "openvino"),
        (["compress", "m.py:task", "--metric", "acuracy"], "did you mean 'accuracy'"),
        (["compress", "m.py:task", "--data", "rows.csv"], "--data file.py:function"),
        (["compress", "m.py:task", "--recipe", "absent.toml"], "absent.toml"),
        (["compress", "m.py:task", "--recipe", "w8a9"], "did you mean 'w8a8'"),
        (["report", "absent"], "not a run folder"),
        (["bench", "absent"], "no artifact"),
        (["compress", "m.py:task", "--threads", "0"], "threads"),
        (["compres"], "compres"),
    ],
)
def test_users_mistakes_exit_with_2(cli: Cli, words: list[str], told: str) -> None:
    code, said = cli(*words)
    assert code == 2, said
    assert told in " ".join(said.split()), said
    assert "Traceback" not in said
    assert "def forward" not in said  # what torch prints of its own state


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ("[[step]]\npass = 'quantise'", "did you mean 'quantize'"),
        ("[[step]]\npass = 'quantize'\nweights = 'int88x'", "int88x"),
        ("[[step]]\npass = 'quantize'\nwieghts = 'int8'", "did you mean 'weights'"),
        ("[[step]]\npass = 'quantize'\nwhere = \"path('nowhere.*')\"", "matches nothing"),
        ("[[step]]\npass = 'quantize'\nwhere = \"__import__('os').system('touch fired')\"", "cannot read the selector"),
        ("[[step]\n", "cannot be read"),
        ("[[step]]\npass = 'os:system'", "unknown pass"),
    ],
)
def test_a_recipe_that_cannot_be_read(cli: Cli, recipe: str, told: str) -> None:
    Path("r.toml").write_text(recipe)
    code, said = cli("compress", "m.py:task", "--recipe", "r.toml")
    assert code == 2, said
    assert told in " ".join(said.split()), said
    assert not Path("fired").exists()


def _pickled(mark: Path) -> bytes:
    return pickle.dumps(Bomb(mark))


def _archive(mark: Path) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in ("m/data.pkl", "m/models/model.json", "m/data/weights/model.pt", "m/data/sample_inputs/model.pt"):
            archive.writestr(name, _pickled(mark))
        archive.writestr("m/version", "3\n")
        archive.writestr("../escaped", "no")
    return content.getvalue()


@pytest.mark.parametrize("name", ["model.pt", "model.pkl", "model.bin", "model.pt2", "model.planish"])
@pytest.mark.parametrize("content", [_pickled, _archive, lambda mark: b"", lambda mark: b"\xff" * 64])
def test_nothing_in_a_file_is_executed(cli: Cli, name: str, content: Callable[[Path], bytes]) -> None:
    mark = Path("fired").resolve()
    Path(name).write_bytes(content(mark))
    code, said = cli("analyze", name)
    assert code == 2, said
    assert not mark.exists()
    assert not Path("../escaped").exists()


def test_a_directory_of_pickled_weights_is_refused(cli: Cli) -> None:
    mark, folder = Path("fired").resolve(), Path("weights")
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    (folder / "pytorch_model.bin").write_bytes(_pickled(mark))
    code, said = cli("analyze", "weights")
    assert code == 2, said
    assert not mark.exists()


def test_an_artifact_of_pickles_is_refused(cli: Cli) -> None:
    mark, folder = Path("fired").resolve(), Path("run/artifact")
    folder.mkdir(parents=True)
    for name in ("artifact.json", "model.onnx", "structure.pkl"):
        (folder / name).write_bytes(_pickled(mark))
    code, said = cli("bench", "run")
    assert code == 2, said
    assert not mark.exists()


def test_a_trusted_pt2_is_read_with_its_dynamic_sizes(cli: Cli) -> None:
    batch = torch.export.Dim("batch")
    program = torch.export.export(torch.nn.Linear(4, 3), (torch.randn(5, 4),), dynamic_shapes=({0: batch},))
    torch.export.save(program, "m.pt2")
    code, said = cli("analyze", "m.pt2")
    assert code == 2
    assert "--trust" in said
    from planish.flow import resolve

    graph = resolve("m.pt2", trust=True).graph
    x = torch.randn(9, 4)
    torch.testing.assert_close(graph(x), program.module()(x))


def test_a_bug_of_ours_is_called_one(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("planish.flow.resolve", lambda *_, **__: 1 / 0)
    code, said = cli("analyze", "mlp")
    assert code == 1
    assert "bug in planish" in said
    assert "Traceback" not in said


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("planish.flow.resolve", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["analyze", "mlp", "--run", str(tmp_path), "--debug"])


def test_ctrl_c_says_what_is_kept(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from planish import analysis

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(analysis, "profile", interrupted)
    code, said = cli("analyze", "m.py:make", "--run", "kept")
    assert code == 130
    assert "kept" in said
    code, said = cli("report", "kept")
    assert code == 0, said
    assert Path("kept/report.html").exists()


LIMITED = """
import resource, sys
from planish.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), -1))
main(sys.argv[2:])
"""


@pytest.mark.parametrize("size", [100, pytest.param(5_000, marks=pytest.mark.long)])
def test_a_full_disk_leaves_what_was_measured(size: int, tmp_path: Path) -> None:
    """A limit on the size of a file refuses a write as a full disk does, at a later stage the larger it is."""
    (tmp_path / "m.py").write_text(MAKE)
    words = ["compress", "m.py:task", "--engine", "onnxruntime", "--run", "kept"]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(size), *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 2, said
    assert "free space" in said, said
    assert "Traceback" not in said
    rows = Run(tmp_path / "kept").measurements()
    assert size < 1000 or {row.name for row in rows} >= {"model", "size"}
