"""Structured pruning: units that go together are found in the graph, and every tensor that holds them gets smaller."""

from planish.compress.structured.prune import PruneStructured

__all__ = ["PruneStructured"]
