"""nas-bench-graph: 26,206 graph networks on nine data sets, each trained by its authors.

    pip install nas-bench-graph        # Qin et al., "NAS-Bench-Graph", NeurIPS 2022; the tables are inside the wheel

The space is theirs: one of nine ways to connect four nodes, and one of nine operations (five on proteins) in each. Of
the 59,049 points (5,625) many are the same network up to the order of its nodes; these share a row.
"""

from __future__ import annotations

import itertools
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search.tables import Table


class Numbers(pickle.Unpickler):
    """Reads numbers, texts and dicts; a file that asks for anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy.core.multiarray", "scalar"):
            return np._core.multiarray.scalar  # pyright: ignore[reportAttributeAccessIssue]
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        raise pickle.UnpicklingError(f"{module}.{name} does not belong in a table of numbers")


def load(name: str) -> Table:
    """A data set: validation error, and latency as second objective."""
    import nas_bench_graph as source

    operations = source.gnn_list_proteins if name == "proteins" else source.gnn_list
    with (Path(source.__file__).parent / "light" / f"{name}.bench").open("rb") as file:
        bench = Numbers(file).load()
    bench[source.Arch([0, 0, 0, 0], ["skip"] * 4).valid_hash()] = {"valid_perf": 0.0, "latency": 0.0}  # as theirs do
    networks = itertools.product(source.link_list, itertools.product(operations, repeat=4))
    rows = [bench[source.Arch(list(links), list(chosen)).valid_hash()] for links, chosen in networks]
    error = 1 - np.array([row["valid_perf"] for row in rows])
    latency = 1000 * np.array([row["latency"] for row in rows])
    space = {"links": ["".join(map(str, links)) for links in source.link_list]}
    space |= {f"node {place}": list(operations) for place in range(1, 5)}
    objectives = {"error": error, "latency, ms": latency}
    return Table(f"graph-{name}", space, objectives, error, (1.0, float(latency.max()) * 1.01))


arxiv, citeseer, computers, cora, cs, photo, physics, proteins, pubmed = (
    partial(load, name)
    for name in ("arxiv", "citeseer", "computers", "cora", "cs", "photo", "physics", "proteins", "pubmed")
)
