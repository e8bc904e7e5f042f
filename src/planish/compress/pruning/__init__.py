"""Which weights go: patterns, scores, masks, and what the weights that stay make up for."""

from planish.compress.pruning.sparsity import Sparsity

__all__ = ["Sparsity"]
