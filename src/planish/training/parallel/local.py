"""Processes on this machine, started by PyTorch's elastic agent and ended with it.

The agent starts all of them again where one dies. One that ends by an error of ours would end so again: it leaves word
of it in a folder, and those that are started again end at once.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from planish.errors import OptionError, PlanishError, UserError

logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the errors themselves are told
ENVIRONMENT = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""Without it a training whose worker was killed meets its own old store when it starts again, and fails."""
_WORD = "PLANISH_ERRORS"


def run(work: Callable[..., Any], *args: Any, processes: int, restarts: int = 0) -> Any:
    """What `work(*args)` returns in the first of several processes, each with its rank in the environment.

    Args:
        work: A function of a module; it and the arguments are pickled.
        args: Its arguments.
        processes: How many.
        restarts: How often all are started again where one died.

    Raises:
        PlanishError: As one of them raised it.
        OptionError: The function or an argument cannot be sent to another process.
    """
    with tempfile.TemporaryDirectory() as folder, _environment(folder):
        config = _config(processes, restarts, Path(folder).name)
        try:
            result = elastic_launch(config, _work)(work, args, processes)[0]
        except ChildFailedError as error:
            _raise_word(error)
            raise
        except (AttributeError, TypeError) as error:
            what = f"the training cannot be sent to another process: {error}"
            raise OptionError(what, "plan", "torchrun --nproc-per-node N your_script.py") from error
        _raise_word()
        return result


def _work(work: Callable[..., Any], args: tuple[Any, ...], processes: int) -> Any:
    if has_failed():
        return None
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    with leaving_word():
        return work(*args)


def has_failed() -> bool:
    """Whether this process was started again after an error that would come again."""
    return bool(_words())


@contextmanager
def leaving_word() -> Iterator[None]:
    """Leave an error of ours to the process that waits for this one, which tells it once; else it goes on upward."""
    try:
        yield
    except PlanishError as error:
        if _WORD in os.environ:
            told = [error.exit_code, error.what, error.where, error.hint]
            Path(os.environ[_WORD], f"error-{os.environ['RANK']}.json").write_text(json.dumps(told))
            raise SystemExit(error.exit_code) from error
        raise


def _words() -> list[Path]:
    return sorted(Path(os.environ[_WORD]).glob("error-*.json")) if _WORD in os.environ else []


def _raise_word(cause: Exception | None = None) -> None:
    for file in _words():
        kind, *told = json.loads(file.read_text())
        raise (UserError if kind == UserError.exit_code else PlanishError)(*told) from cause


@contextmanager
def _environment(folder: str) -> Iterator[None]:
    given = {**ENVIRONMENT, _WORD: folder}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def run_command(words: Sequence[str], processes: int, restarts: int) -> int:
    """Run a command line in several processes, as torchrun does, and return 0; or what the first that failed returned.

    Where one dies, all are started again, up to `restarts` times.

    Raises:
        PlanishError: As one of them left it.
    """
    with tempfile.TemporaryDirectory() as folder, _environment(folder):
        config = _config(processes, restarts, "planish")
        try:
            elastic_launch(config, words[0])(*words[1:])
        except ChildFailedError as error:
            _raise_word(error)
            return max(1, error.get_first_failure()[1].exitcode)
        _raise_word()
    return 0


def _config(processes: int, restarts: int, name: str) -> LaunchConfig:
    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        run_id=name,
        max_restarts=restarts,
        monitor_interval=0.1,
        start_method="spawn",
    )
