"""Recipes: order, plan, files, errors that name the step."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from planish.compress import Quantize, Smooth
from planish.errors import DataError, OptionError, UnknownName
from planish.frontends import capture
from planish.graph import Graph, Pass, ops, path
from planish.models.vit import ViT
from planish.recipe import Recipe, passes, ready
from planish.rewrite import Canonicalize, FoldBatchNorm

FULL = Recipe(
    FoldBatchNorm(),
    Canonicalize(keep_training=False),
    Smooth(alpha=0.7, where=ops.linear - path("2")),
    Quantize(weights="int4@g8", where=path("2"), correct_bias=True),
    Quantize("int8", "uint8", ranges="percentile", percentile=99.9, max_drop=0.5),
    Quantize(weights=None, attention="int8"),
    name="full",
)


@pytest.fixture(scope="module")
def graph() -> Graph:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8))
    return capture(model.eval(), (torch.randn(4, 16),))


def data() -> list:
    return [((torch.randn(4, 16, generator=torch.Generator().manual_seed(seed)),), {}) for seed in range(4)]


def test_passes_run_in_order(graph):
    recipe = Recipe(Smooth(0.5), Quantize("int4@g8", where="path('2')"), Quantize("int8", "uint8"))
    seen = []
    small = recipe(graph, data(), progress=lambda done, total, what: seen.append((done, total, what)))
    by_hand = graph
    for step in recipe.steps:
        by_hand = step(by_hand, data())
    assert str(small) == str(by_hand)
    assert seen[-1][:2] == (3000, 3000)
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert any("quantize" in what for _, _, what in seen)


@pytest.mark.parametrize("suffix", [".toml", ".json"])
def test_files_round_trip(tmp_path, suffix):
    file = tmp_path / f"recipe{suffix}"
    FULL.save(file)
    assert Recipe.load(file) == FULL
    assert hash(Recipe.load(file)) == hash(FULL)


def test_the_file_is_what_a_person_would_write():
    assert Recipe(Quantize("int8", "uint8", where=ops.linear & ~path("pooler.*"))).to_toml() == (
        '[[step]]\npass = "quantize"\nactivations = "uint8"\nwhere = "linear & ~path(\'pooler.*\')"\n'
    )


# name: the least mean cosine, and the largest share of the weights' bytes
READY = {
    "2of4-int8": (0.75, 0.75),
    "early-exit": (0.8, 1.3),
    "half-macs": (0.0, 0.9),
    "merge-tokens": (0.9, 1.01),
    "mxfp4": (0.9, 0.5),
    "mxfp4-qera": (0.95, 0.5),
    "nf4": (0.99, 0.2),
    "qlora": (0.99, 0.6),
    "sparse-50": (0.9, 0.9),
    "w4-g32": (0.99, 0.25),
    "w4-g64": (0.985, 0.2),
    "w8": (0.999, 0.4),
    "w8a8": (0.999, 0.4),
    "w8a8-classifier": (0.999, 0.4),
    "w8a8-conv": (0.999, 0.4),
    "w8a8-conv-vnni": (0.999, 0.4),
    "w8a8-dynamic": (0.999, 0.4),
    "w8a8-vnni": (0.999, 0.4),
}


def ready_case(name: str) -> tuple[Graph, list]:
    torch.manual_seed(0)
    if "conv" in name or "classifier" in name:
        body = [nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3)]
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 64)]
        model = nn.Sequential(*body, *(head if "classifier" in name else []))
        inputs = [torch.randn(2, 3, 8, 8) for _ in range(4)]
    elif "tokens" in name or name == "w8a8-vnni":
        model = ViT(num_classes=8, image=32, patch=4, dim=32, depth=2, heads=2)
        inputs = [torch.randn(2, 3, 32, 32) for _ in range(4)]
    elif "exit" in name:
        model = nn.Sequential(*(nn.Linear(64, 64) for _ in range(6)), nn.ReLU(), nn.Linear(64, 4))
        inputs = [torch.randn(32, 64) for _ in range(4)]
    else:
        model = nn.Sequential(nn.Embedding(50, 64), nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64))
        inputs = [torch.randint(50, (4, 32)) for _ in range(4)]
    return capture(model.eval(), (inputs[0],)), inputs


@pytest.mark.parametrize("name", list(ready()))
def test_ready_recipes_apply(name):
    graph, inputs = ready_case(name)
    recipe = Recipe.ready(name)
    assert recipe.name == name
    assert recipe.about
    assert Recipe.from_data(recipe.to_data()) == recipe
    least, largest = READY[name.removesuffix("-recovered")]
    plan = recipe.plan(graph)
    assert plan.after[0] < largest * plan.before[0]
    taught = [step for step in recipe.steps if step.learns]
    steps = [dataclasses.replace(step, minutes=None, epochs=1) if step.learns else step for step in recipe.steps]
    assert len(taught) == (name.endswith("-recovered") or name == "half-macs")
    small = Recipe(*steps)(graph, [((x,), {}) for x in inputs])
    cosine = nn.functional.cosine_similarity(small(inputs[0]), graph(inputs[0]), dim=-1).mean()
    assert cosine > least


def test_plan_prints_every_tensor(graph):
    text = str(Recipe(Smooth(), Quantize("int8", "uint8")).plan(graph))
    assert "1. smooth" in text
    assert "2. quantize" in text
    assert "weight to int8@channel0" in text
    assert "2,048 B -> 640 B" in text
    assert "0.weight  32 × 16  int8@channel0, 10 bits" in text
    assert text.endswith("in total 3,072 B -> 928 B of weights, 3,072 -> 3,072 MACs")


def test_a_plan_follows_the_passes_before_it(graph):
    recipe = Recipe(Quantize("int8"), Quantize("int4"))
    with pytest.raises(OptionError, match=r"(?s)quantized already.*step 2 \(quantize\)"):
        recipe.plan(graph)


def test_errors_name_the_step(graph):
    recipe = Recipe(Smooth(), Quantize("int8", where="path('nowhere')"))
    with pytest.raises(OptionError, match=r"step 2 \(quantize\)"):
        recipe.plan(graph)
    with pytest.raises(DataError, match=r"step 1 \(smooth\)"):
        recipe(graph)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[step]]\npass = 'quantise'", "did you mean 'quantize'"),
        ("[[step]]\npass = 'quantise'", "step 1"),
        ("[[step]]\nweights = 'int8'", "needs the name of its pass"),
        ("[[step]]\npass = 'quantize'\nwieghts = 'int8'", "did you mean 'weights'"),
        ("[[step]]\npass = 'smooth'\n[[step]]\npass = 'quantize'\nmax_drop = 'x'", r"step 2 \(quantize\), max_drop"),
        ("[[step]]\npass = 'quantize'\nweights = 'itn8'", r"step 1 \(quantize\)"),
        ("[[step]]\npass = 'quantize'\nwhere = '__import__(\"os\")'", "cannot read the selector"),
        ("[[step]]\npass = 'os:system'", "unknown pass"),
        ("steps = []", "unknown table 'steps'"),
        ("", "list of"),
        ("step = 3", "list of"),
        ("[[step", "cannot be read"),
        ("name = 3\n[[step]]\npass = 'smooth'", "name is a text"),
    ],
)
def test_bad_files(tmp_path, text, message):
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(OptionError, match=message):
        Recipe.load(file)


def test_bad_recipes(tmp_path):
    with pytest.raises(OptionError, match="one pass or more"):
        Recipe()
    with pytest.raises(OptionError, match=r"Quantize\(\.\.\.\)"):
        Recipe(Quantize)
    with pytest.raises(OptionError, match="cannot read"):
        Recipe.load(tmp_path / "absent.toml")
    with pytest.raises(UnknownName):
        passes["nothing"]


def test_a_pass_nobody_registered_runs_but_has_no_file(graph):
    @dataclass(frozen=True)
    class Mine(Pass):
        def plan(self, graph):
            return []

        def apply(self, graph, data, progress):
            return graph

    recipe = Recipe(Mine())
    assert recipe(graph).fx is graph.fx
    with pytest.raises(OptionError, match="not registered"):
        recipe.to_toml()


@pytest.mark.parametrize("name", list(passes))
def test_every_registered_pass_has_a_default_form(name):
    goal = {"correct": {"rank": 4}, "factorize": {"budget": 0.5}, "replace": {"by": "skip"}}.get(
        name, {}
    )  # what nobody can know for the user
    recipe = Recipe(passes[name](**goal))
    assert recipe.to_data() == {"step": [{"pass": name, **goal}]}
    assert Recipe.from_data(recipe.to_data()) == recipe


def test_passes_that_learn_get_the_training_data(graph):
    seen = {}

    @dataclass(frozen=True)
    class Looks(Pass):
        name: str = ""

        def plan(self, graph):
            return []

        def apply(self, graph, data, progress):
            seen[type(self).__name__] = data
            return graph

    class Learns(Looks):
        learns = True

    calibration, training = [((torch.ones(1),), {})], [((torch.zeros(1),), {})]
    recipe = Recipe(Looks(), Learns())
    assert recipe.learns
    recipe(graph, calibration, training=training)
    assert seen == {"Looks": calibration, "Learns": training}
    recipe(graph, calibration)
    assert seen["Learns"] is calibration
