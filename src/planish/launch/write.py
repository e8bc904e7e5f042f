"""The engines by name, and their files on disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import tomli_w

from planish.errors import UserError
from planish.launch.job import PLAN, Job
from planish.registry import Registry
from planish.training.parallel import Plan

engines = Registry(
    "launcher",
    {
        "k8s": "planish.launch.kubernetes:manifest",
        "sky": "planish.launch.sky:task",
        "slurm": "planish.launch.slurm:script",
        "torchrun": "planish.launch.torchrun:script",
    },
)


def files(on: str, plan: Plan, job: Job) -> Mapping[str, str]:
    """The job's files, the plan among them, by name.

    Raises:
        UnknownName: There is no such engine.
        OptionError: The plan does not fill the machines, or the engine needs what the job does not say.
    """
    return {PLAN: tomli_w.dumps(plan.to_data()), **engines[on](plan, job)}


def write(on: str, plan: Plan, job: Job, folder: str | os.PathLike[str]) -> list[Path]:
    """Write the job's files.

    Raises:
        UserError: The disk refused; or as for `files`, before anything is written.
    """
    made, place = files(on, plan, job), Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
        for name, text in made.items():
            (place / name).write_text(text)
            (place / name).chmod(0o755 if text.startswith("#!") else 0o644)
    except OSError as error:
        raise UserError(f"cannot write the job's files: {error.strerror}", str(place), "--out DIR") from error
    return [place / name for name in made]
