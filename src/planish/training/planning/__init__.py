"""Which plan, why, and what a step will take: hardware, a step-time model, an integer program, a search over plans."""

from planish.training.planning.automatic import automatic
from planish.training.planning.hardware import Cluster, Hardware, parse_mesh
from planish.training.planning.planned import Candidate, LayerRow, Planned
from planish.training.planning.planner import plan, predict

__all__ = ["Candidate", "Cluster", "Hardware", "LayerRow", "Planned", "automatic", "parse_mesh", "plan", "predict"]
