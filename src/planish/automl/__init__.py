"""Search: a space is a recipe with holes."""

from planish.automl.decision import Decision, Point, point_id
from planish.automl.filling import Filled
from planish.automl.space import Space
from planish.automl.strategies import sampler
from planish.holes import PerNode, between, choose, each

__all__ = ["Decision", "Filled", "PerNode", "Point", "Space", "between", "choose", "each", "point_id", "sampler"]
