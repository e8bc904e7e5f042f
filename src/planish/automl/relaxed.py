"""A space as a supernet: every option of every decision in one network, searched by gradients or by shared weights.

The decisions that relax are those of passes with `candidates`: one hole a pass, or a whole step. What stands before
them in the recipe is applied first; what stands after them is done when a point is made on its own.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from planish.automl.decision import Decision
from planish.automl.objective import Subject
from planish.automl.space import Space
from planish.automl.supernet import Result, Slot, Supernet
from planish.errors import DataError, OptionError
from planish.graph import Data, Graph, Pass, Progress
from planish.holes import Choose, Each, Hole, PerNode, Template, fill, inside
from planish.recipe import Recipe, name_of
from planish.recipe.recipe import per_value
from planish.registry import Registry
from planish.training.losses import cross_entropy, mse, of_outputs, relative

relaxations = Registry(
    "relaxation",
    {
        "darts": "planish.automl.supernet:Darts",
        "gdas": "planish.automl.supernet:Gdas",
        "proxyless": "planish.automl.supernet:Proxyless",
        "sandwich": "planish.automl.supernet:Sandwich",
        "single-path": "planish.automl.supernet:SinglePath",
    },
)


def slots(space: Space) -> tuple[Graph, list[Slot]]:
    """The graph before the first decision, and the decisions.

    Raises:
        OptionError: A decision is no choice between passes that relax; names it.
    """
    if space.graph is None:
        raise OptionError("a model with decisions of its own has no one graph to relax", "model", "Replace(each(...))")
    known = {decision.name: decision for decision in space.decisions}
    graph, found, fixed = space.graph, dict[str, Slot](), list[Any]()
    taken: dict[str, int] = {}
    for step in space.recipe.steps:
        name = (step.name or "step") if isinstance(step, Hole) else name_of(step)
        taken[name] = taken.get(name, 0) + 1
        place = name if taken[name] == 1 else f"{name} {taken[name]}"
        if isinstance(step, Pass):
            if not found:
                fixed.append(step)
            continue
        for slot in _of_step(step, place, known):
            if slot.name in found:
                raise OptionError(
                    "a decision about several passes does not relax", slot.name, "one pass, where= for all"
                )
            found[slot.name] = slot
    if any(True for _ in inside([space.recipe.target, space.recipe.arguments])):
        raise OptionError("a decision about a target has nothing to relax", "target", "a strategy that tries points")
    return (Recipe(*fixed)(graph) if fixed else graph), list(found.values())


def relax(
    strategy: str,
    space: Space,
    subject: Subject,
    seed: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> Result:
    """Search a space by a supernet.

    Args:
        strategy: One of `relaxations`.
        space: Whose decisions relax.
        subject: Its training data teach the weights, its validation data judge. Where items have no target, the graph's
            own outputs are learned.
        seed: Of all that is random.
        progress: Called with (done, total, what).
        **options: Fields of the strategy.

    Raises:
        OptionError: A decision does not relax; names it and the option.
        DataError: There is no data to learn from.
    """
    graph, decisions = slots(space)
    kind = relaxations[strategy]
    known = kind.__dataclass_fields__
    if unknown := options.keys() - known:
        raise OptionError(f"{strategy} has no option {sorted(unknown)[0]!r}", "options", f"known: {', '.join(known)}")
    training = subject.training or subject.calibration
    if not training:
        raise DataError("there is no data to learn from", "training", "training=[(args, kwargs, target), ...]")
    net = Supernet(graph, decisions)
    judged: Data = subject.validation or training
    return kind(**options).run(net, list(training), list(judged), partial(loss, graph), seed, progress)


def loss(graph: Graph, module: nn.Module, item: tuple[Any, ...]) -> Tensor:
    """Cross-entropy to class numbers, squared error to other targets; without one, distance to the graph's outputs."""
    args, kwargs, *target = item
    output = module(*args, **kwargs)
    if not target:
        with torch.no_grad():
            wanted = graph(*args, **kwargs)
        return of_outputs(relative, output, wanted)
    classes = isinstance(target[0], Tensor) and not target[0].is_floating_point()
    return cross_entropy(output, target[0]) if classes else mse(output, target[0])


def _of_step(step: Template | Hole, place: str, known: dict[str, Decision]) -> list[Slot]:
    if isinstance(step, Hole):
        options = getattr(step, "options", ())
        if any(True for option in options for _ in inside(option)):
            raise OptionError(
                "an option with decisions of its own has nothing to relax", place, "options without holes"
            )
        name = step.name or place
        return [Slot(name, getattr(step, "labels", ()), tuple(options))]
    holes = list(inside(step))
    if len(holes) != 1 or not isinstance(holes[0], Choose):
        several = f"{len(holes)} decisions in one pass cannot stand beside each other"
        what = several if len(holes) > 1 else "a number does not relax"
        raise OptionError(what, place, "one choice in each pass, or a strategy that tries points")
    (hole,) = holes
    assert isinstance(hole, Choose)
    if not isinstance(hole, Each):
        name = hole.name or next((each for each in known if each.partition("[")[0].startswith(f"{place}.")), place)
        return [Slot(name, hole.labels, tuple(_filled(step, option) for option in hole.options))]
    base = hole.name or next(each.rpartition("[")[0] for each in known if each.startswith(f"{place}."))
    paths = [each[len(base) + 1 : -1] for each in known if each.startswith(f"{base}[")]
    return [
        Slot(f"{base}[{path}]", hole.labels, tuple(_filled(step, PerNode({path: option})) for option in hole.options))
        for path in paths
    ]


def _filled(step: Template, option: Any) -> Pass | None:
    """The pass with an option in its hole; None where it leaves its node as it is."""
    made = per_value(fill(step, lambda _hole, _place: option))
    return made[0] if made else None
