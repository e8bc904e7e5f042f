"""Processes of this machine: what they return, and which of their deaths are tried again."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from planish.errors import OptionError, UserError
from planish.training.parallel.local import run

pytestmark = pytest.mark.xdist_group("processes")


def started(folder: str) -> None:
    Path(folder, f"{os.environ['RANK']}-{time.time_ns()}").touch()


def refusing(folder: str) -> None:
    started(folder)
    raise UserError("the loss is NaN", "step 3", "a lower learning rate")


def killed_once(folder: str) -> str:
    started(folder)
    if len(list(Path(folder).iterdir())) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


@pytest.mark.long
def test_an_error_of_ours_is_not_tried_again(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the loss is NaN") as told:
        run(refusing, str(tmp_path), processes=1, restarts=3)
    assert (told.value.where, told.value.hint) == ("step 3", "a lower learning rate")
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.long
def test_a_killed_process_is_started_again(tmp_path: Path) -> None:
    assert run(killed_once, str(tmp_path), processes=1, restarts=1) == "done"
    assert len(list(tmp_path.iterdir())) == 2


def test_what_cannot_be_sent(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cannot be sent to another process"):
        run(lambda: None, processes=1)
