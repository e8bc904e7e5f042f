"""The recipe that is used where the user names none."""

from __future__ import annotations

from planish.compress import Quantize, Smooth
from planish.graph import Graph, Pass, ops
from planish.recipe import Recipe
from planish.rewrite import FoldBatchNorm


def recipe(graph: Graph) -> Recipe:
    """8-bit weights and activations: batch norms folded, outliers smoothed, biases corrected, where the graph has any."""
    steps: list[Pass] = []
    if any(node.op.endswith("batch_norm") for node in graph.nodes):
        steps.append(FoldBatchNorm())
    if ops.linear.within(graph.nodes):
        steps.append(Smooth())
    steps.append(Quantize(weights="int8", activations="uint8", correct_bias=True))
    return Recipe(*steps, name="int8")
