"""Kill workers of a search at random instants, and look at what they left.

    python -m benchmarks.search.durability --kills 200

Two workers share one study on SQLite. At random instants one of them is killed (SIGKILL) and another takes its place.
After each the study is read; every trial that a worker had reported as finished must be there with its numbers. In the
end, after the grace time, no trial may be left under way.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import tempfile
import time
import warnings
from pathlib import Path

import optuna
import torch
from tests.automl import toy

from planish.automl import storage
from planish.automl.budget import Budget
from planish.automl.search import join, make
from planish.automl.storage import opened
from planish.automl.study import Search
from planish.record import Run, environment

RESULTS = Path("benchmarks/results/search")
WORKERS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    storage.HEARTBEAT, storage.GRACE = 1, 3
    with tempfile.TemporaryDirectory() as folder:
        found = kill(Path(folder), given.kills, random.Random(given.seed))
    print(json.dumps(found, indent=2))
    Run(RESULTS).write(
        "durability.json", json.dumps({**found, "environment": environment(given.seed)}, indent=2) + "\n"
    )


def kill(folder: Path, kills: int, chance: random.Random) -> dict[str, float]:
    """Kill that many workers; the counts of what went wrong."""
    url, told = f"sqlite:///{folder / 'search.db'}", folder / "told.jsonl"
    search = the_search()
    with opened(url) as kept:
        search.study(kept)
    workers = [start(url, told) for _ in range(WORKERS)]
    lost = unreadable = 0
    began = time.monotonic()
    for _ in range(kills):
        time.sleep(chance.uniform(0.0, 0.6))
        gone = chance.randrange(WORKERS)
        os.kill(workers[gone], signal.SIGKILL)
        os.waitpid(workers[gone], 0)
        try:
            lost += missing(url, told)
        except Exception as error:  # whatever a study that cannot be read says
            print(f"cannot be read: {error}")
            unreadable += 1
        workers[gone] = start(url, told)
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
    time.sleep(storage.GRACE + 2)
    search = the_search()
    ended = sum(trial.state.is_finished() for trial in trials(url))
    join(lambda: search, Budget(trials=ended + 3 * WORKERS), url)
    left = [trial for trial in trials(url) if trial.state == optuna.trial.TrialState.RUNNING]
    return {
        "kills": kills,
        "trials": len(trials(url)),
        "finished trials lost": lost + missing(url, told),
        "times unreadable": unreadable,
        "left under way": len(left),
        "seconds": time.monotonic() - began,
    }


def the_search() -> Search:
    """Bits of six layers: more points than there will be trials."""
    return make(toy.recipe(), toy.graph(6), maximize=toy.size, minimize="bits", strategy="random")


def start(url: str, told: Path) -> int:
    """A worker's process id. A fork, so that two hundred of them need not import PyTorch."""
    child = os.fork()
    if child:
        return child
    with told.open("a") as file:

        def watch(trial) -> None:
            file.write(json.dumps([trial.number, list(trial.losses)]) + "\n")
            file.flush()

        search = the_search()
        join(lambda: search, Budget(seconds=3600), url, watch)
    os._exit(0)


def trials(url: str) -> list[optuna.trial.FrozenTrial]:
    with opened(url) as kept:
        return optuna.load_study(study_name="planish", storage=kept).get_trials()


def missing(url: str, told: Path) -> int:
    """Trials that a worker told to be finished and that the study does not have so."""
    lines = told.read_text().splitlines() if told.exists() else []  # first: the other worker goes on
    kept = {trial.number: trial for trial in trials(url)}
    lost = 0
    for line in lines:
        try:
            number, losses = json.loads(line)
        except ValueError:  # torn by the kill
            continue
        trial = kept.get(number)
        values = [-trial.values[0], trial.values[1]] if trial is not None and trial.values else []
        lost += losses != values
    return lost


if __name__ == "__main__":
    main()
