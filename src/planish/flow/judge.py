"""A task's verdict on a model, with the user's own metric held apart from our mistakes."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from planish.errors import DataError, PlanishError
from planish.models.task import Task
from planish.record import Measurement

_OURS = Path(__file__).parents[1]


def judged(task: Task, model: Callable[..., Any] | None, subject: str) -> Sequence[Measurement]:
    """`task.judge(model, subject)`.

    Raises:
        DataError: A metric of the user's raised something; names its line.
    """
    try:
        return task.judge(model, subject)
    except PlanishError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        place = next((i for i, frame in enumerate(frames) if Path(frame.filename).name == "task.py"), len(frames))
        called = frames[place + 1] if place + 1 < len(frames) else None
        if called is None or _OURS in Path(called.filename).parents:
            raise
        raise DataError(
            f"the metric raised {type(error).__name__}: {error}",
            f"{called.filename}:{called.lineno}",
            "metric(model, data) -> Measurement",
        ) from error
