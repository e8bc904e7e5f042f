"""Lossy passes: each makes a graph smaller or faster and says what it will touch before it does."""

from planish.compress.adapt import Adapt
from planish.compress.adaptive import EarlyExit, MergeTokens, PruneTokens
from planish.compress.allocate import Allocate
from planish.compress.architecture import Attention, Depth, Heads, KernelSize, Replace, Width
from planish.compress.balance import Balance
from planish.compress.cluster import Cluster
from planish.compress.concentrate import Concentrate
from planish.compress.correct import Correct
from planish.compress.factorize import Factorize
from planish.compress.permute import Permute
from planish.compress.prune import Prune
from planish.compress.quantize import Quantize
from planish.compress.rotate import Rotate
from planish.compress.smooth import Smooth
from planish.compress.structured import PruneStructured

__all__ = [
    "Adapt",
    "Allocate",
    "Attention",
    "Balance",
    "Cluster",
    "Concentrate",
    "Correct",
    "Depth",
    "EarlyExit",
    "Factorize",
    "Heads",
    "KernelSize",
    "MergeTokens",
    "Permute",
    "Prune",
    "PruneStructured",
    "PruneTokens",
    "Quantize",
    "Replace",
    "Rotate",
    "Smooth",
    "Width",
]
