"""Lossy passes: each makes a graph smaller or faster and says what it will touch before it does."""

from planish.compress.prune import Prune
from planish.compress.quantize import Quantize
from planish.compress.smooth import Smooth

__all__ = ["Prune", "Quantize", "Smooth"]
