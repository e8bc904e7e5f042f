"""The one graph, and the only way to look at it, select in it and change it."""

from planish.graph.cast import cast
from planish.graph.edit import Editor
from planish.graph.graph import Graph
from planish.graph.node import Node
from planish.graph.ops import FAMILIES, ROLES, Roles
from planish.graph.passes import Candidate, Data, Pass, Progress, Step
from planish.graph.select import Selector, dtype, ops, parse_selector, path

__all__ = [
    "FAMILIES",
    "ROLES",
    "Candidate",
    "Data",
    "Editor",
    "Graph",
    "Node",
    "Pass",
    "Progress",
    "Roles",
    "Selector",
    "Step",
    "cast",
    "dtype",
    "ops",
    "parse_selector",
    "path",
]
