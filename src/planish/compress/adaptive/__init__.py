"""Less work for easy inputs: early exits, fewer tokens, fewer layers."""

from planish.compress.adaptive.exits import EarlyExit
from planish.compress.adaptive.stages import Stage, stages
from planish.compress.adaptive.tokens import MergeTokens, PruneTokens

__all__ = ["EarlyExit", "MergeTokens", "PruneTokens", "Stage", "stages"]
