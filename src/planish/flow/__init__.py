"""What a command does: a model, a recipe and a target in, a run folder out."""

from planish.flow.job import analyze, begin, compress, is_analyzed, judge, sensitivity
from planish.flow.source import Source, resolve
from planish.flow.verbs import build, load

__all__ = ["Source", "analyze", "begin", "build", "compress", "is_analyzed", "judge", "load", "resolve", "sensitivity"]
