"""Recipes: passes in order, a target and what stands open in them, as data."""

from planish.recipe.passes import name_of, passes
from planish.recipe.plan import Plan
from planish.recipe.recipe import Kept, Recipe, ready

__all__ = ["Kept", "Plan", "Recipe", "name_of", "passes", "ready"]
