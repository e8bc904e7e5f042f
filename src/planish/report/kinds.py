"""All kinds of run folders; a folder is of the first that it fits."""

from __future__ import annotations

from typing import Any

from planish.record import Run
from planish.report import compression, federation, plan, search, step, training
from planish.report.kind import Kind

KINDS: tuple[Kind[Any], ...] = (
    search.KIND,
    compression.KIND,
    training.KIND,
    federation.KIND,
    plan.KIND,
    step.KIND,
)
"""The order decides where commands shared a folder."""


def kind_of(run: Run) -> Kind[Any]:
    """The kind of a folder; one without rows is a compression that has not begun."""
    return next((kind for kind in KINDS if kind.fits(run)), compression.KIND)
