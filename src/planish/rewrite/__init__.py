"""Exact passes: what comes out computes the same, with less; after each, `Editor.done` removes what nobody reads."""

from planish.rewrite.batch_norm import FoldBatchNorm
from planish.rewrite.canonical import Canonicalize
from planish.rewrite.constants import FoldConstants
from planish.rewrite.low_rank import SplitLowRank
from planish.rewrite.merge import Merge

__all__ = ["Canonicalize", "FoldBatchNorm", "FoldConstants", "Merge", "SplitLowRank"]
