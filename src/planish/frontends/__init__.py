"""Ways in: what a user has, made a `Graph`."""

from planish.frontends.from_torch import capture

__all__ = ["capture"]
