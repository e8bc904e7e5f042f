"""Kill processes of a training with SIGKILL at random steps, and compare how it ends with one that nobody touched.

    python -m benchmarks.training.survival --runs 10       # writes results/training/survival.json

Half of the runs go on by themselves, since torch's elastic agent starts all processes again; the other half are started
again by hand on another number of processes and by another plan. All in float64, on processes of this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tests.training.parallel import networks

from planish.record import Run, environment
from planish.training import Checkpoints, Moment, Training, train
from planish.training.engine import named_parameters
from planish.training.parallel import Plan
from planish.training.parallel.local import run_command
from planish.training.parallel.world import is_first

RESULTS = Path("benchmarks/results/training")
OPTIONS = Training(steps=60, learning_rate=1e-2)
EVERY = 5
PAIRS = [
    (Plan(fsdp=2), Plan(fsdp=2)),
    (Plan(fsdp=4), Plan(tp=2)),
    (Plan(tp=2), Plan(tp=2)),
    (Plan(pp=2, microbatches=2), Plan(fsdp=2)),
    (Plan(dp=2), Plan(dp=2)),
    (Plan(dp=2, fsdp=2), Plan(pp=2, schedule="zero-bubble", microbatches=2)),
    (Plan(pp=2, microbatches=4), Plan(pp=2, microbatches=4)),
    (Plan(fsdp=2, tp=2), Plan(dp=2)),
    (Plan(dp=2, fsdp=2), Plan(dp=2, fsdp=2)),
    (Plan(tp=2), Plan(fsdp=4)),
]


class Told:
    """Writes each step's loss to a file, and takes its time."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_step(self, moment: Moment) -> None:
        with self.file.open("a") as stream:
            stream.write(json.dumps([moment.step, moment.loss]) + "\n")
        time.sleep(0.02)

    def on_epoch(self, moment: Moment) -> None:
        pass

    def on_end(self, moment: Moment) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", nargs=3, metavar=("PLAN", "FOLDER", "RESTARTS"), help=argparse.SUPPRESS)
    parser.add_argument("--member", nargs=2, metavar=("PLAN", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.member:
        member(Plan.read(given.member[0]), Path(given.member[1]))
        return
    if given.work:
        plan, folder, restarts = given.work
        words = [sys.executable, "-m", "benchmarks.training.survival", "--member", plan, folder]
        sys.exit(run_command(words, Plan.read(plan).devices, int(restarts)))
    chance, rows = random.Random(given.seed), []
    wanted = untouched()
    for number in range(given.runs):
        before, after = PAIRS[number % len(PAIRS)]
        with tempfile.TemporaryDirectory() as folder:
            rows.append(once(Path(folder), before, after, chance, wanted))
        print(json.dumps(rows[-1]), flush=True)
    resumed = sum(row["resumed"] for row in rows)
    print(f"{resumed} of {len(rows)} went on, {sum(row['equal'] for row in rows)} to the same end")
    found = {"runs": rows, "environment": environment(given.seed)}
    Run(RESULTS).write("survival.json", json.dumps(found, indent=2) + "\n")


def untouched() -> tuple[dict[int, float], dict[str, torch.Tensor]]:
    """Losses and final parameters of one process."""
    graph, data = networks.captured("gpt")
    with tempfile.TemporaryDirectory() as folder:
        told = Told(Path(folder, "told"))
        trained = train(graph, data, OPTIONS, callbacks=[told])
        losses = dict(json.loads(line) for line in told.file.read_text().splitlines())
    return losses, {name: each.detach() for name, each in named_parameters(trained.module()).items()}


def member(plan: Plan, folder: Path) -> None:
    """One process of a training."""
    (folder / f"pid-{os.getpid()}").touch()
    graph, data = networks.captured("gpt")
    watch = Told(folder / "told")
    trained = train(graph, data, OPTIONS, callbacks=[watch], checkpoints=Checkpoints(folder / "kept", EVERY), plan=plan)
    if is_first():
        tensors = {name: each.detach().clone() for name, each in named_parameters(trained.module()).items()}
        save_file(tensors, folder / "end.safetensors")


def once(folder: Path, before: Plan, after: Plan, chance: random.Random, wanted: Any) -> dict[str, Any]:
    """One training with one kill; what came of it."""
    restarts = 3 if before == after else 0
    first = start(folder, before, restarts)
    step = chance.randint(2, 50)
    reached = wait_for(folder, step, first)
    victims = sorted(folder.glob("pid-*"))
    victim = int(chance.choice(victims).name.removeprefix("pid-"))
    os.kill(victim, signal.SIGKILL)
    killed, began = len((folder / "told").read_text().splitlines()), time.monotonic()
    code = first.wait(300)
    if before != after:
        code = start(folder, after, 0).wait(300)
    lines = [json.loads(line) for line in (folder / "told").read_text().splitlines()]
    again = lines[killed:]
    worst = max(abs(loss - wanted[0][at]) / wanted[0][at] for at, loss in lines)
    ended = (folder / "end.safetensors").is_file() and code == 0
    end = load_file(folder / "end.safetensors") if ended else {}
    apart = (
        max((float((end[n] - t).abs().max() / t.abs().max()) for n, t in wanted[1].items()), default=1.0)
        if end
        else 1.0
    )
    return {
        "before": str(before),
        "after": str(after),
        "by": "the agent" if before == after else "hand",
        "killed at step": reached,
        "went on at step": again[0][0] if again else None,
        "resumed": ended,
        "equal": ended and worst < 1e-10 and apart < 1e-10,
        "loss apart": worst,
        "parameters apart": apart,
        "seconds to the end": time.monotonic() - began,
    }


def start(folder: Path, plan: Plan, restarts: int) -> subprocess.Popen[bytes]:
    plan.write(folder / "plan.toml")
    words = ["--work", str(folder / "plan.toml"), str(folder), str(restarts)]
    quiet = subprocess.DEVNULL
    return subprocess.Popen([sys.executable, "-m", "benchmarks.training.survival", *words], stdout=quiet, stderr=quiet)


def wait_for(folder: Path, step: int, process: subprocess.Popen[bytes]) -> int:
    while process.poll() is None:
        time.sleep(0.02)
        if (folder / "told").is_file() and len(lines := (folder / "told").read_text().splitlines()) >= step:
            return len(lines)
    raise RuntimeError(f"the training ended before step {step}")


if __name__ == "__main__":
    main()
