"""The graph after each step of a recipe, in the run folder."""

from __future__ import annotations

from planish.errors import UserError
from planish.flow.keys import computing, key
from planish.flow.stages import GRAPHS, Stages
from planish.graph import Graph
from planish.recipe import Recipe, name_of


class KeptGraphs:
    """Graphs of one recipe, each with the key of the model, the data and the steps up to it.

    Args:
        stages: Of the run folder.
        recipe: The recipe.
        start: Key of the graph that the recipe starts from.
        data: Key of the calibration data.
    """

    def __init__(self, stages: Stages, recipe: Recipe, start: str, data: str) -> None:
        self._stages = stages
        self._keys: list[str] = []
        for step in recipe.to_data()["step"]:
            self._keys.append(key(self._keys[-1] if self._keys else key(start, data, computing()), step))
        self._names = [name_of(step) for step in recipe.steps]
        self.notes: list[str] = []

    @property
    def key(self) -> str:
        """Of the graph after the last step."""
        return self._keys[-1]

    @property
    def files(self) -> list[str]:
        """Where the graphs are, in the run folder."""
        return [f"{GRAPHS}/{place}-{name}.planish" for place, name in enumerate(self._names, 1)]

    def has(self, place: int) -> bool:
        """Whether the graph after this step was made from the same, and is still there."""
        return self._stages.has(self._stage(place), self._keys[place])

    def load(self, place: int) -> Graph:
        """The graph after this step."""
        return Graph.load(self._stages.run.path / self.files[place])

    def save(self, place: int, graph: Graph) -> None:
        """Keep the graph after this step."""
        self.notes += keep(self._stages, self._stage(place), self._keys[place], self.files[place], graph)

    def _stage(self, place: int) -> str:
        return f"step {place + 1}: {self._names[place]}"


def keep(stages: Stages, name: str, key: str, file: str, graph: Graph) -> list[str]:
    """Write a graph into the run folder, as what a stage leaves.

    Returns:
        Why it could not be written, if there are graphs of its kind that no file holds: it is made again next time.

    Raises:
        UserError: The disk refused.
    """
    try:
        with stages.doing(name, key, file):
            graph.save(stages.run.path / file, whole=True)
    except UserError as error:
        if error.__cause__:  # the disk's refusal
            raise
        return [f"{name} is not kept: {error.what}"]
    return []
