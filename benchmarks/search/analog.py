"""NAS-Bench-201's 15,625 networks on CIFAR-10, after quantization.

    pip install --no-deps analog-nasbench      # Bessalah et al., "AnalogNAS-Bench", 2025: the table is inside its wheel

Each of six edges of a cell carries one of five operations, which the table numbers from 0 to 4. Of its columns, the
accuracies after post-training quantization and after quantization-aware training are used. Its code is not imported.
"""

from __future__ import annotations

import itertools
import pickle
from functools import partial
from typing import Any

import numpy as np

from benchmarks.search.tables import Table
from planish.models.data import package_file


class Fields:
    """Stands for the classes of the file: attributes and nothing else."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


class Rows(pickle.Unpickler):
    """Reads numbers, texts, dicts and the two classes of the file, as `Fields`; anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in {("analognasbench.data", "Architecture"), ("analognasbench.data", "DriftMeasurement")}:
            return Fields
        raise pickle.UnpicklingError(f"{module}.{name} does not belong in a table of numbers")


def load(column: str) -> Table:
    """Error in percent after "ptq" or "qat"."""
    with package_file("analog-nasbench", "peers", "analognasbench/data.anb").open("rb") as file:
        rows = Rows(file).load()
    networks = list(itertools.product(range(5), repeat=6))
    error = np.array([100 - getattr(rows[network], f"{column}_accuracy") for network in networks])
    return Table(f"nas201-{column}", {f"edge {place}": range(5) for place in range(6)}, {"error": error}, error)


ptq, qat = partial(load, "ptq"), partial(load, "qat")
