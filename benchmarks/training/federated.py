"""Federated training beside a plain loop of torch: accuracy, time and bytes, over seeds.

    python -m benchmarks.training.federated            # all tasks, a quarter of an hour on one core
    python -m benchmarks.training.federated digits

Ten clients share the data by a Dirichlet(0.3) over labels. The plain loop and ours start from equal weights and read
equal batches in equal order; they take turns, one thread each, and the time is that of the processor, which others on
the machine do not lengthen. An accuracy is the mean over the last five rounds, since single rounds of so uneven clients
differ by points.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from planish.models import digits, fashion
from planish.models.convnet import ConvNet
from planish.models.mlp import MLP
from planish.record import environment
from planish.training.federated import Federation, federate, local
from planish.training.federated.federate import deal
from planish.training.federated.rows import Rows
from planish.training.randomness import order

KEPT = Path(__file__).parents[1] / "results" / "training" / "federated.json"
SEEDS, LAST, RATE, IMAGE = 5, 5, 0.05, (1, 8, 8)
UPDATES = ("int3@g32*float16",)
BASE = Federation(clients=10, partition="dirichlet:0.3", batch_size=20)
TASKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any], Callable[[], Any], Federation]] = {
    "digits": (
        ConvNet,
        lambda: digits.batches("train", IMAGE),
        lambda: digits.batches("evaluation", IMAGE),
        replace(BASE, rounds=12, local=local(epochs=2, learning_rate=RATE)),
    ),
    "digits, a perceptron": (  # whose step is so short that all else shows
        MLP,
        lambda: digits.batches("train"),
        lambda: digits.batches("evaluation"),
        replace(BASE, rounds=20, local=local(epochs=2, learning_rate=RATE)),
    ),
    "FashionMNIST": (
        lambda: ConvNet(width=8),
        lambda: fashion.batches("train", 2_500),
        lambda: fashion.batches("evaluation", 2_000),
        replace(BASE, rounds=12, local=local(epochs=1, learning_rate=RATE)),
    ),
}


def plain(net: nn.Module, shares: Sequence[Sequence[Any]], test: Any, federation: Federation) -> list[float]:
    """FedAvg as one would write it: accuracy after each round."""
    whole, found = {name: value.clone() for name, value in net.state_dict().items()}, []
    for number in range(1, federation.rounds + 1):
        total: dict[str, Tensor] = {name: torch.zeros_like(value, dtype=torch.float32) for name, value in whole.items()}
        rows = [sum(len(y) for _, _, y in share) for share in shares]
        for client, share in enumerate(shares):
            net.load_state_dict(whole)
            net.train()
            optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=0.9, nesterov=True)
            seed = (federation.seed * 1_000_003 + number) * 1_000_003 + client
            for epoch in range(federation.local.epochs or 0):
                for place in order(len(share), seed, epoch):
                    (x,), _, y = share[place]
                    optimizer.zero_grad()
                    cross_entropy(net(x), y).backward()
                    optimizer.step()
            for name, value in net.state_dict().items():
                total[name] += value * (rows[client] / sum(rows))
        whole = {name: value.to(whole[name].dtype) for name, value in total.items()}
        net.load_state_dict(whole)
        net.eval()
        with torch.no_grad():
            right = sum(int((net(*args).argmax(1) == y).sum()) for args, _, y in test)
        found.append(right / sum(len(y) for _, _, y in test))
    return found


def one(task: str, seed: int) -> dict[str, Any]:
    """Plain, ours, and ours compressed, from one seed."""
    build, train, test, usual = TASKS[task]
    federation, data, judged = replace(usual, seed=seed), train(), test()
    shares = deal(Rows(data), federation, None)

    def fresh() -> nn.Module:
        torch.manual_seed(seed)
        return build()

    began = time.process_time()
    accuracy = plain(fresh(), shares, judged, federation)
    rows: dict[str, Any] = {"seed": seed, "plain": {"accuracy": _end(accuracy), "seconds": time.process_time() - began}}
    for update in ("float32", *UPDATES):
        began = time.process_time()
        done = federate(fresh(), data, replace(federation, update=update), evaluation=judged)
        rows[update] = {
            "accuracy": _end([each.quality[0].value for each in done.rounds]),
            "seconds": time.process_time() - began,
            "received": sum(each.received for each in done.rounds) / federation.rounds,
            "sent": sum(each.sent for each in done.rounds) / federation.rounds,
        }
    return rows


def _end(accuracy: Sequence[float]) -> float:
    return mean(accuracy[-LAST:])


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds, beside the bars."""

    def points(name: str, other: str) -> float:
        return 100 * mean(run[name]["accuracy"] - run[other]["accuracy"] for run in runs)

    def ratio(name: str, other: str, what: str) -> float:
        return sorted(run[name][what] / run[other][what] for run in runs)[len(runs) // 2]

    ways = {"plain": 100 * mean(run["plain"]["accuracy"] for run in runs)}
    ways |= {name: 100 * mean(run[name]["accuracy"] for run in runs) for name in ("float32", *UPDATES)}
    return {
        "accuracy, %": ways,
        "points above the plain loop": points("float32", "plain"),
        "time over the plain loop's (median)": ratio("float32", "plain", "seconds"),
        "compressed": {
            name: {
                "points above float32": points(name, "float32"),
                "points above the plain loop": points(name, "plain"),
                "times fewer bytes of updates": ratio("float32", name, "received"),
            }
            for name in UPDATES
        },
    }


def main(names: Sequence[str]) -> None:
    torch.set_num_threads(1)
    federate(MLP(), digits.batches("train"), rounds=1)  # imports and kernels, for nobody's account
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {"tasks": {}}
    for name in names or TASKS:
        runs = []
        for seed in range(SEEDS):
            runs.append(one(name, seed))
            print(name, json.dumps(runs[-1]), flush=True)
        kept["tasks"][name] = {"federation": str(TASKS[name][3]), "summary": summary(runs), "runs": runs}
        kept["environment"] = environment(command="python -m benchmarks.training.federated")
        KEPT.parent.mkdir(parents=True, exist_ok=True)
        KEPT.write_text(json.dumps(kept, indent=2) + "\n")
        print(json.dumps(kept["tasks"][name]["summary"], indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
