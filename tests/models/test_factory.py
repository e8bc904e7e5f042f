from __future__ import annotations

import pytest

from planish import models
from planish.errors import DataError, ModelError, UnknownName
from planish.models.factory import from_file, load_function

GOOD = """
import torch
from neighbor import WIDTH
from planish.models.task import Task

class Net(torch.nn.Linear):
    example_inputs = (torch.zeros(2, WIDTH),)

def task():
    return Task(torch.nn.Linear(WIDTH, 2), (torch.zeros(2, WIDTH),), name="mine")

def pair():
    return torch.nn.Linear(WIDTH, 2), (torch.zeros(2, WIDTH),)

def module():
    return Net(WIDTH, 2)

def bare():
    return torch.nn.Linear(WIDTH, 2)

def text():
    return "a model"

def breaks():
    value = 1
    return value / 0

def exits():
    raise SystemExit("no GPU")

def refuses():
    return Task(torch.nn.Linear(WIDTH, 2), (torch.zeros(2, WIDTH),), calibration=7)
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "neighbor.py").write_text("WIDTH = 4\n")
    (tmp_path / "mine.py").write_text(GOOD)
    return tmp_path / "mine.py"


@pytest.mark.parametrize("function", ["task", "pair", "module"])
def test_three_ways_to_give_a_model(file, function):
    task = models.load(f"{file}:{function}")
    assert task.name == ("mine" if function == "task" else function)
    assert task.model(*task.args).shape == (2, 2)


def test_an_error_names_the_users_line(file):
    line = GOOD.splitlines().index("    return value / 0") + 1
    with pytest.raises(ModelError, match="ZeroDivisionError") as caught:
        from_file(f"{file}:breaks")
    assert caught.value.where == f"{file}:{line}"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("function", "message"),
    [("bare", "without example inputs"), ("text", "returned str"), ("exits", "SystemExit: no GPU")],
)
def test_what_does_not_do(file, function, message):
    with pytest.raises(ModelError, match=message):
        from_file(f"{file}:{function}")


def test_our_own_errors_pass(file):
    with pytest.raises(DataError, match="not int"):
        from_file(f"{file}:refuses")


def test_an_unknown_function_lists_the_others(file):
    with pytest.raises(UnknownName, match="did you mean 'module'"):
        from_file(f"{file}:modul")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [("x = 1\ny = (\n", 2, "SyntaxError"), ("x = 1\n\nimport nowhere_at_all\n", 3, "nowhere")],
)
def test_a_broken_file_names_the_line(tmp_path, text, line, message):
    file = tmp_path / "broken.py"
    file.write_text(text)
    with pytest.raises(ModelError, match=message) as caught:
        load_function(f"{file}:task")
    assert caught.value.where == f"{file}:{line}"


@pytest.mark.parametrize("source", ["nowhere.py:task", "task", "file.txt:task", "file.py:not a name", "file.py:"])
def test_a_bad_source(source):
    with pytest.raises(ModelError):
        load_function(source)


def test_an_unknown_model_lists_the_known():
    with pytest.raises(UnknownName, match="did you mean 'resnet18'"):
        models.load("resnet")
