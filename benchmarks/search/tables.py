"""Spaces whose every point is known.

A `Table` is a space of decisions and a figure for each of its points; nothing is trained when a search asks for one.
`tables[name]()` makes one: from small networks of ours that are evaluated at every point (seconds), from results that
are kept (the digits cells), or from nas-bench-graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution

from planish.registry import Registry

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Table:
    """A space with a known figure at every point.

    Attributes:
        name: What results call it.
        space: The options of each decision, in an order that says nothing.
        objectives: What to minimize, `{name: (points,)}`, points in the order of `itertools.product(*space.values())`.
        single: What a search for one objective minimizes, `(points,)`; it weighs the objectives of the table.
        reference: For the hypervolume: a loss of every objective that no point reaches.
    """

    name: str
    space: Mapping[str, Sequence[Any]]
    objectives: Mapping[str, Array]
    single: Array
    reference: tuple[float, ...] = ()

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        """The space as Optuna spells it."""
        return {name: CategoricalDistribution(options) for name, options in self.space.items()}

    @cached_property
    def _strides(self) -> dict[str, dict[Any, int]]:
        strides, step = {}, 1
        for name in reversed(self.space):
            strides[name] = {option: place * step for place, option in enumerate(self.space[name])}
            step *= len(self.space[name])
        return strides

    def row(self, point: Mapping[str, Any]) -> int:
        """The number of a point."""
        return sum(self._strides[name][option] for name, option in point.items())

    def __len__(self) -> int:
        return len(self.single)

    def target(self, share: float = 0.001) -> float:
        """The loss of the worst of the best points, that are this share of all (at least one)."""
        best = max(1, round(share * len(self)))
        return float(np.partition(self.single, best - 1)[best - 1])


tables: Registry = Registry(
    "table",
    {
        "mixed": "benchmarks.search.precision:mixed",
        "mixed-letters": "benchmarks.search.precision:letters",
        "mixed-conv": "benchmarks.search.precision:conv",
        "nas201-ptq": "benchmarks.search.analog:ptq",
        "nas201-qat": "benchmarks.search.analog:qat",
        "formats": "benchmarks.search.precision:formats",
        "sparse": "benchmarks.search.precision:sparse",
        "formats-letters": "benchmarks.search.precision:read_formats",
        "ranks": "benchmarks.search.structure:ranks",
        "widths": "benchmarks.search.structure:widths",
        "fpga": "benchmarks.search.folding:folding",
        "cells": "benchmarks.search.kept:cells",
        **{
            f"graph-{name}": f"benchmarks.search.graphs:{name}"
            for name in ("arxiv", "citeseer", "computers", "cora", "cs", "photo", "physics", "proteins", "pubmed")
        },
    },
)
