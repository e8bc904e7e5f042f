"""Which axes of which tensors are the same channels, read off the graph: what structured pruning removes together."""

from planish.analysis.dependency.dims import Dim, Keep, indices_of, labels_of, leaves, moved, size_of
from planish.analysis.dependency.groups import Dependencies, Group, Place, dependencies
from planish.analysis.dependency.trace import Product, Trace

__all__ = [
    "Dependencies",
    "Dim",
    "Group",
    "Keep",
    "Place",
    "Product",
    "Trace",
    "dependencies",
    "indices_of",
    "labels_of",
    "leaves",
    "moved",
    "size_of",
]
