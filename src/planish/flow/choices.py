"""What a command line chooses: the recipe and the target, with their defaults."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from planish.compress import Quantize, Smooth
from planish.config import decode
from planish.errors import OptionError
from planish.graph import Graph, Pass, ops
from planish.recipe import Recipe
from planish.record import environment
from planish.rewrite import FoldBatchNorm
from planish.targets import Target, targets


def read_recipe(recipe: str | None) -> Recipe | None:
    """The recipe of a name or in a file; None, for the default one, if nothing is named.

    Raises:
        UnknownName: It is no file, and no recipe that comes with Planish.
        OptionError: The file cannot be read; says where in it.
    """
    if recipe is None:
        return None
    is_file = Path(recipe).suffix in (".toml", ".json") or Path(recipe).exists()
    return Recipe.load(recipe) if is_file else Recipe.ready(recipe)


def default_recipe(graph: Graph, target: Target) -> Recipe:
    """8-bit weights and activations; batch norms folded, weights rounded together and biases corrected where there are
    any. For a processor, outliers are smoothed and products kept such that it multiplies exactly."""
    steps: list[Pass] = []
    if any(node.op.endswith("batch_norm") for node in graph.nodes):
        steps.append(FoldBatchNorm())
    if target.runs_here and ops.linear.within(graph.nodes):
        steps.append(Smooth())
    pairs = 16 if target.runs_here else 32
    steps.append(Quantize(weights="int8", activations="uint8", by="gptq", correct_bias=True, pair_bits=pairs))
    return Recipe(*steps, name="int8")


def choose_target(
    name: str,
    engine: str | None = None,
    threads: int | None = None,
    batch: int | None = None,
    options: Iterable[str] = (),
) -> Target:
    """A target by name with the options of a command line.

    Args:
        name: As in `planish targets`.
        engine: Of a target with engines.
        threads: Of a target with cores.
        batch: Of a target that is timed; 1 if not given.
        options: More of the target's fields, `name=value` each, values as in TOML or plain words.

    Raises:
        UnknownName: Nobody registered the target or the engine.
        OptionError: The target does not take the options, or the machine has fewer cores.
    """
    kind = targets[name]
    cores = environment(command="")["cores"]
    if threads and threads > cores:
        raise OptionError(f"this machine has {cores} cores, not {threads}", "--threads", f"--threads {cores}")
    given = {"threads": threads, "batch": batch, "engine": engine}
    table: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if "batch" in {field.name for field in dataclasses.fields(kind)}:
        table.setdefault("batch", 1)  # a batch that is fixed stays as it is
    return decode(kind, table | dict(map(_option, options)), f"--target {name}")


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise OptionError(f"an option is NAME=VALUE, not {text!r}", "--set", "--set clock=150MHz")
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name, value
