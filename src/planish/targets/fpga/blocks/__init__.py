"""The library's blocks: the operation that each implements."""

from __future__ import annotations

from planish.registry import Registry

blocks = Registry("block", {})
"""Name of an operation's class, in lower case -> `Block`."""
