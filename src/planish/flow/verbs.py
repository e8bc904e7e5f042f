"""`planish.build` and `planish.load`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from planish.errors import ModelError, OptionError
from planish.graph import Data, Graph
from planish.targets import Artifact, Target, loaders, targets


def build(graph: Graph, target: str | Target = "cpu", data: Data | None = None, **options: Any) -> Artifact:
    """Make something that runs on a piece of hardware.

    Args:
        graph: What it computes.
        target: A name (`planish targets`) or a target with options, `planish.Cpu(threads=2)`.
        data: Re-iterable `(args, kwargs)` to check and time it on; by default the graph's example.
        **options: More of what the target's `build` takes (`folder`, `progress`).

    Raises:
        UnknownName: Nobody registered a target of that name.
        EngineError: No engine takes the graph; says what is in the way.
    """
    return target_of(target).build(graph, data=data, **options)


def target_of(target: str | Target) -> Target:
    """The target itself, or a registered one with its default options."""
    if isinstance(target, str):
        return targets[target]()
    if not isinstance(target, Target):
        raise OptionError(f"a target is a name or a target, not {type(target).__name__}", "target", "target='cpu'")
    return target


def load(path: str | os.PathLike[str]) -> Graph | Artifact:
    """Read back what was saved: a graph (`.planish`) or the folder of an artifact. Nothing is executed.

    Raises:
        ModelError: It is neither.
        UntrustedFile: It is damaged, or asks for something outside the allow-list.
    """
    place = Path(path)
    if place.is_dir():
        note = next((name for name in loaders if (place / name).exists()), "artifact.json")
        return loaders[note](place)
    if place.suffix == ".planish" and place.is_file():
        return Graph.load(place)
    what = (
        "this is not a graph (.planish) nor an artifact's folder"
        if place.exists()
        else "there is no such file or folder"
    )
    raise ModelError(what, str(path), "graph.save('m.planish') and artifact.save('out/') write them")
