"""Backpropagation, visible: what a training step computes, keeps and needs at its peak, and what it really took."""

from planish.training.backward.cost import Part, StepCost, step_cost
from planish.training.backward.measured import peak_memory

__all__ = ["Part", "StepCost", "peak_memory", "step_cost"]
