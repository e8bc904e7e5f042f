"""Tables whose rows are kept under results/search/."""

from __future__ import annotations

import numpy as np

from benchmarks.search import cells as cell_space
from benchmarks.search.tables import Table


def cells() -> Table:
    """The digits cells: mean validation error over the seeds, and multiply-accumulates; 625 points."""
    rows = cell_space.table()
    points = cell_space.points()
    error = np.array([1 - np.mean(rows[cell_space.key(point)].valid) for point in points])
    macs = np.array([cell_space.macs(point) for point in points], float)
    space = dict.fromkeys(cell_space.NAMES, cell_space.OPERATIONS)
    return Table("cells", space, {"error": error, "MACs": macs}, error, (1.0, float(macs.max()) * 1.01))
