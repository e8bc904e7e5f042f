"""How long each operation takes in PyTorch, measured on the graph itself."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from planish.analysis.execute import Executor, ItemCall
from planish.analysis.peaks import torch_threads
from planish.errors import OptionError
from planish.graph import Graph, Node, Progress
from planish.record import Measurement


@dataclass(frozen=True)
class Timing:
    """Seconds of one operation: median, and 25th and 75th percentile, over the repeats."""

    node: Node
    median: float
    spread: tuple[float, float]


@dataclass(frozen=True)
class Profile:
    """Times of all operations of a graph in eager PyTorch.

    Attributes:
        timings: By node name, in execution order.
        threads: PyTorch's threads.
        repeats: How often the graph was run.
    """

    timings: Mapping[str, Timing]
    threads: int
    repeats: int

    @property
    def total(self) -> float:
        """Sum of the medians, in seconds."""
        return sum(timing.median for timing in self.timings.values())

    def measurements(self, subject: str = "original") -> list[Measurement]:
        """One row `node_time` for each operation, as a run folder keeps it."""
        return [
            Measurement(
                "node_time",
                timing.median,
                "s",
                "measured",
                timing.spread,
                subject,
                timing.node.path,
                {
                    "node": timing.node.name,
                    "op": timing.node.op,
                    "type": timing.node.module_type,
                    "engine": "eager",
                    "threads": self.threads,
                },
            )
            for timing in self.timings.values()
        ]


def profile(
    graph: Graph,
    call: ItemCall | None = None,
    repeats: int = 9,
    progress: Progress | None = None,
    threads: int | None = None,
) -> Profile:
    """Run a graph node by node and time each one.

    Every repeat runs the whole graph, so that an operation finds the caches as it would in use and a disturbance hits
    few repeats of each. What depends on no input is computed before.

    Args:
        graph: The graph.
        call: `(args, kwargs)`; None takes the example.
        repeats: How many runs, after one that is not counted.
        progress: Called after each repeat.
        threads: How many threads work; None takes PyTorch's own number.

    Raises:
        DataError: The call does not fit the graph.
        OptionError: Fewer than one repeat.
    """
    if repeats < 1:
        raise OptionError(f"a profile needs at least one repeat, not {repeats}", "repeats")
    executor = Executor(graph)
    call = graph.example if call is None else call
    threads = threads or torch.get_num_threads()
    times = np.empty((repeats + 1, len(executor.order)))
    with torch_threads(threads):
        for repeat in range(repeats + 1):
            values = executor.bind(call, "call")
            for index in range(len(executor.order)):
                begin = time.perf_counter()
                executor.advance(values, index, index + 1)
                times[repeat, index] = time.perf_counter() - begin
            if progress is not None and repeat:
                progress(repeat, repeats, "profile")
    low, median, high = np.percentile(times[1:], (25, 50, 75), axis=0)
    timings = {
        node.name: Timing(Node(graph, node), float(median[i]), (float(low[i]), float(high[i])))
        for i, node in enumerate(executor.order)
    }
    return Profile(timings, threads, repeats)
