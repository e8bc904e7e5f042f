"""Processes that are started once and take one task after the other: most of a parallel test is their start."""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import multiprocessing

SIZE = 8


class Failed(Exception):
    """What a worker raised, as text, and its class."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Pool:
    """At most `SIZE` workers, started as they are needed; `run` gives a task to some of them."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")  # which imports once, for all that it starts
        self._context.set_forkserver_preload(["planish.training.parallel.spread", "tests.training.parallel.networks"])
        self._workers: list[tuple[Any, Any]] = []
        self._folder = tempfile.TemporaryDirectory()
        self._number = 0

    def run(self, work: Callable[..., Any], *args: Any, processes: int) -> list[Any]:
        """What `work(*args)` returns in each of so many processes, joined by a process group of gloo."""
        while len(self._workers) < processes:
            mine, its = self._context.Pipe()
            worker = self._context.Process(target=_serve, args=(its,), daemon=True)
            worker.start()
            self._workers.append((worker, mine))
        self._number += 1
        store = Path(self._folder.name, f"store-{self._number}")
        for rank, (_, pipe) in enumerate(self._workers[:processes]):
            pipe.send((work, args, rank, processes, str(store)))
        answers = []
        for _, pipe in self._workers[:processes]:
            answers.append(pipe.recv() if pipe.poll(300) else ("failed", ("TimeoutError", "no answer in 300 s")))
        failed = [told for state, told in answers if state == "failed"]
        if failed:
            self.close()  # some may wait for those that failed
            own = [told for told in failed if "GLHF" not in told[1] and "no answer" not in told[1]]
            raise Failed(*(own or failed)[0])
        return [told for _, told in answers]

    def end(self) -> None:
        """End the workers, and what they met in."""
        self.close()
        self._folder.cleanup()

    def close(self) -> None:
        """End the workers."""
        for worker, _ in self._workers:
            worker.kill()
            worker.join()
        self._workers.clear()


def _serve(pipe: Any) -> None:
    torch.set_num_threads(1)
    while True:
        with suppress(EOFError):
            work, args, rank, size, store = pipe.recv()
            os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank))
            try:
                dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
                pipe.send(("done", work(*args)))
            except Exception as error:
                pipe.send(("failed", (type(error).__name__, f"{error}\n{traceback.format_exc()}")))
            finally:
                if dist.is_initialized():
                    dist.destroy_process_group()
            continue
        return
