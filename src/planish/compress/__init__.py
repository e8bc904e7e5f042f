"""Lossy passes: each makes a graph smaller or faster and says what it will touch before it does."""

from planish.compress.adaptive import EarlyExit, MergeTokens, PruneTokens, SkipLayers
from planish.compress.prune import Prune
from planish.compress.quantize import Quantize
from planish.compress.smooth import Smooth
from planish.compress.structured import PruneStructured

__all__ = ["EarlyExit", "MergeTokens", "Prune", "PruneStructured", "PruneTokens", "Quantize", "SkipLayers", "Smooth"]
