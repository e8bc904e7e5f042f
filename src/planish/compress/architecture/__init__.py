"""Passes that change the architecture: other operators, fewer channels, heads and layers, other kernels."""

from planish.compress.architecture.attention import Attention
from planish.compress.architecture.depth import Depth
from planish.compress.architecture.kernel import KernelSize
from planish.compress.architecture.operators import operators
from planish.compress.architecture.replace import Replace
from planish.compress.architecture.width import Heads, Width

__all__ = ["Attention", "Depth", "Heads", "KernelSize", "Replace", "Width", "operators"]
