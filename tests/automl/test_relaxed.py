"""A declared space as a supernet."""

from __future__ import annotations

import pytest
import torch

import planish
from planish import Recipe
from planish.automl import Space, between, choose, each
from planish.automl.objective import Subject
from planish.automl.relaxed import loss, relax, slots
from planish.automl.search import search
from planish.compress import Prune, PruneStructured, Quantize, Replace, Width
from planish.errors import OptionError
from planish.models.digits import batches
from planish.training import Fit
from tests.automl.supernet.spaces import Cell

OPERATORS = ("none", "skip", "conv1x1-bn-relu")
SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    return planish.capture(Cell(), (torch.randn(2, *SHAPE),), dynamic={"x": {0: "batch"}})


def edges() -> Recipe:
    steps = [
        Replace(choose(*OPERATORS, name=f"edge {place}"), f"path('edges.{place}')", "modules") for place in range(2)
    ]
    return Recipe(*steps, Fit(epochs=1, learning_rate=1e-2, batch_size=100))


def test_each_decision_is_a_slot_with_its_passes(graph):
    space = Space(edges(), graph)
    _, found = slots(space)
    assert [slot.name for slot in found] == [decision.name for decision in space.decisions] == ["edge 0", "edge 1"]
    assert all(slot.labels == OPERATORS for slot in found)
    assert found[1].variants[1] == Replace("skip", "path('edges.1')", "modules")


def test_decisions_for_each_layer_are_slots(graph):
    space = Space(Recipe(Quantize(weights=each(None, "int2", "int8"), where="conv")), graph)
    _, found = slots(space)
    assert [slot.name for slot in found] == [decision.name for decision in space.decisions]
    assert all(slot.variants[0] is None and slot.variants[1] is not None for slot in found)


def test_what_stands_before_is_done_and_a_step_may_be_open(graph):
    space = Space(Recipe(Width(0.5), choose(None, Quantize("int2", where="conv"), name="bits")), graph)
    narrow, found = slots(space)
    assert narrow.tensors["head.weight"].shape[1] < graph.tensors["head.weight"].shape[1]
    assert found[0].labels == ("none", "Quantize(weights=int2, where=conv)")


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (lambda: Recipe(PruneStructured(between(0.2, 0.5))), "a number does not relax"),
        (
            lambda: Recipe(Quantize(weights=choose("int4", "int8"), activations=choose("int8", "int4"))),
            "2 decisions in one pass",
        ),
        (
            lambda: Recipe(
                Replace(choose("skip", "none", name="x"), "path('edges.0')", "modules"),
                target=planish.Cpu(threads=choose(1, 2)),
            ),
            "a decision about a target",
        ),
    ],
)
def test_what_does_not_relax_is_refused_by_name(graph, recipe, said):
    with pytest.raises(OptionError, match=said):
        search(recipe(), graph, strategy="gdas", minimize="macs")


def test_an_option_without_a_relaxation_is_named(graph):
    recipe = Recipe(Prune(choose("2:4", 0.5, name="sparsity"), where="conv & ~path('stem*')"))
    subject = Subject(training=list(batches("train", SHAPE, 100)), validation=batches("validation", SHAPE))
    with pytest.raises(OptionError, match=r"'2:4' has nothing(.|\n)*sparsity"):
        relax("single-path", Space(recipe, graph), subject)


@pytest.mark.long
@pytest.mark.parametrize("strategy", ["single-path", "gdas"])
def test_the_best_points_are_made_on_their_own(graph, tmp_path, strategy):
    told = {
        "training": batches("train", SHAPE, 100),
        "validation": batches("validation", SHAPE),
        "maximize": "accuracy",
        "minimize": "macs",
        "strategy": strategy,
        "options": {"steps": 12},
        "run": tmp_path,
    }
    found = search(edges(), graph, budget=2, **told)
    assert [trial.state for trial in found.trials] == ["complete", "complete"]
    again = search(edges(), graph, budget=2, **told)
    assert [trial.point for trial in again.trials] == [trial.point for trial in found.trials]


def test_without_targets_the_graph_is_the_teacher(graph):
    x = torch.randn(3, *SHAPE)
    assert loss(graph, graph.module(), ((x,), {})) < 1e-9
    assert loss(graph, graph.module(), ((x,), {}, torch.tensor([1, 2, 3]))) > 0.1
    with pytest.raises(OptionError, match="no option 'depth'"):
        relax("gdas", Space(edges(), graph), Subject(), depth=3)
