"""What a command does: a model, a recipe and a target in, a run folder out."""

from planish.flow.again import bench
from planish.flow.choices import choose_target, read_recipe
from planish.flow.job import Job, analyze, build, compress, plan
from planish.flow.source import Source, resolve
from planish.flow.verbs import load

__all__ = [
    "Job",
    "Source",
    "analyze",
    "bench",
    "build",
    "choose_target",
    "compress",
    "load",
    "plan",
    "read_recipe",
    "resolve",
]
