"""What a command does: a model, a recipe and a target in, a run folder out."""

from planish.flow.choices import choose_target, read_recipe
from planish.flow.job import analyze, bench, build, compress
from planish.flow.source import Source, resolve
from planish.flow.verbs import load

__all__ = ["Source", "analyze", "bench", "build", "choose_target", "compress", "load", "read_recipe", "resolve"]
