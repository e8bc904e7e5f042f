"""Training on many devices: a plan, and PyTorch's own engines that carry it out."""

from planish.training.parallel.plan import Plan

__all__ = ["Plan"]
