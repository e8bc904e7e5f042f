"""Targets: hardware that a graph can be built for."""

from planish.targets.base import Artifact, Target, Unsupported, loaders, targets

__all__ = ["Artifact", "Target", "Unsupported", "loaders", "targets"]
