"""Turn a trained model into the smallest, fastest version of itself that your hardware can run, and prove it.

    graph = planish.capture(model, example_inputs)
    small = planish.Recipe(Quantize(weights=int8, activations=int8))(graph, data=calibration)
    artifact = planish.build(small, target="cpu")

Names load on first use, so that `import planish` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planish.analysis import analyze as analyze
    from planish.analysis import compare as compare
    from planish.analysis import sensitivity as sensitivity
    from planish.automl.search import search as search
    from planish.flow.verbs import build as build
    from planish.flow.verbs import load as load
    from planish.frontends import capture as capture
    from planish.graph import Graph as Graph
    from planish.graph import dtype as dtype
    from planish.graph import ops as ops
    from planish.graph import path as path
    from planish.models.task import Task as Task
    from planish.recipe import Recipe as Recipe
    from planish.record import Measurement as Measurement
    from planish.record import Run as Run
    from planish.targets.cpu import Cpu as Cpu
    from planish.targets.fpga.target import Fpga as Fpga
    from planish.training import train as train
    from planish.training.federated import federate as federate
    from planish.training.parallel import Plan as Plan

_HOMES = {
    "Cpu": "planish.targets.cpu",
    "Fpga": "planish.targets.fpga.target",
    "Graph": "planish.graph",
    "Measurement": "planish.record",
    "Plan": "planish.training.parallel",
    "Recipe": "planish.recipe",
    "Run": "planish.record",
    "Task": "planish.models.task",
    "analyze": "planish.analysis",
    "build": "planish.flow.verbs",
    "capture": "planish.frontends",
    "compare": "planish.analysis",
    "dtype": "planish.graph",
    "federate": "planish.training.federated",
    "load": "planish.flow.verbs",
    "ops": "planish.graph",
    "path": "planish.graph",
    "search": "planish.automl.search",
    "sensitivity": "planish.analysis",
    "train": "planish.training",
}

__version__ = "0.1.0.dev0"
__all__ = [*_HOMES, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'planish' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
