"""What a graph costs, where its time goes, and how much precision each of its layers needs."""

from planish.analysis.compare import Comparison, compare
from planish.analysis.cost import Cost, analyze
from planish.analysis.peaks import Peaks, peaks
from planish.analysis.profile import Profile, profile
from planish.analysis.ranges import Ranges, collect
from planish.analysis.roofline import roofline_time
from planish.analysis.sensitivity import Sensitivity, sensitivity
from planish.analysis.sparsity import activation_sparsity
from planish.analysis.weights import Weight, weights
from planish.analysis.work import NodeCost, Work

__all__ = [
    "Comparison",
    "Cost",
    "NodeCost",
    "Peaks",
    "Profile",
    "Ranges",
    "Sensitivity",
    "Weight",
    "Work",
    "activation_sparsity",
    "analyze",
    "collect",
    "compare",
    "peaks",
    "profile",
    "roofline_time",
    "sensitivity",
    "weights",
]
