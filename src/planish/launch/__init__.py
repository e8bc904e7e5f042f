"""Job files: a plan for so many devices, as torchrun, Slurm, Kubernetes and SkyPilot want it said.

    write("slurm", Plan(fsdp=16), Job(("train", "gpt.py:make")), "job/")

An engine is a function `(Plan, Job) -> {file name: text}`. It starts nothing, and needs no account anywhere.
"""

from planish.launch.job import Job
from planish.launch.write import engines, files, write

__all__ = ["Job", "engines", "files", "write"]
