import itertools
import tomllib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import planish
from planish import Recipe
from planish.automl import Space, between, choose, each, point_id
from planish.automl.decision import Decision
from planish.compress import Factorize, Prune, PruneStructured, Quantize, Replace
from planish.errors import OptionError
from planish.holes import PerNode


class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.a = nn.Linear(4, width)
        self.b = nn.Linear(width, 3)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))


@pytest.fixture(scope="module")
def graph():
    return planish.capture(Net(), (torch.randn(2, 4),))


BITS = ("int2", "int4", "int8")


def test_each_is_one_decision_a_layer(graph):
    space = Space(Recipe(Quantize(weights=each(*BITS))), graph)
    assert [decision.name for decision in space.decisions] == ["quantize.weights[a]", "quantize.weights[b]"]
    assert space.size == len(list(space.points())) == 9
    recipe = space.fill({"quantize.weights[a]": "int4", "quantize.weights[b]": "int8"})
    assert recipe.to_data()["step"] == [
        {"pass": "quantize", "weights": "int4", "where": "(linear | conv | embedding) & path('a')"},
        {"pass": "quantize", "where": "(linear | conv | embedding) & path('b')"},  # int8 is the default
    ]


def test_layers_with_one_answer_share_a_pass(graph):
    space = Space(Recipe(Quantize(weights=each(*BITS))), graph)
    recipe = space.fill(dict.fromkeys(("quantize.weights[a]", "quantize.weights[b]"), "int4"))
    assert len(recipe.steps) == 1
    assert recipe(graph).node("linear").weight.format == recipe(graph).node("linear_1").weight.format


def test_none_leaves_a_layer_out(graph):
    space = Space(Recipe(Quantize(weights=each(None, "int4"))), graph)
    names = [decision.name for decision in space.decisions]
    assert space.fill(dict.fromkeys(names, "none")).steps == ()
    assert len(space.fill({names[0]: "none", names[1]: "int4"}).steps) == 1


def test_a_person_may_write_it_by_hand(graph):
    by_hand = Recipe(Quantize(weights=PerNode({"a": "int4", "b": "int8"})))
    space = Space(Recipe(Quantize(weights=each(*BITS))), graph)
    assert space.fill({"quantize.weights[a]": "int4", "quantize.weights[b]": "int8"}) == by_hand


def test_a_step_may_be_open_and_what_is_in_it_only_counts_if_it_is_taken(graph):
    space = Space(Recipe(choose(None, Prune(choose("2:4", 0.5)), name="prune"), Quantize("int8")), graph)
    assert space.size == 3
    points = list(space.points())
    assert points[0] == {"prune": "none"}
    assert len(space.fill(points[0]).steps) == 1
    assert [len(space.fill(point).steps) for point in points[1:]] == [2, 2]


def test_ties_and_conditions(graph):
    kind = choose("rtn", "gptq", name="by")
    bits = choose("int4", "int8", when=kind.among("gptq"), name="bits")
    order = Space(Recipe(Quantize(by=kind, weights=bits, where="path('a')"), Quantize("int8", by=kind)), graph)
    assert order.size == 3
    assert order.fill({"by": "rtn"}).steps[0].weights == planish.formats.get("int4")  # not decided: its first option


def test_a_condition_may_be_about_what_comes_later_if_that_has_a_name(graph):
    for name in ("by", ""):
        kind = choose("rtn", "gptq", name=name)
        bits = choose("int4", "int8", when=kind.among("gptq"), name="bits")
        recipe = Recipe(Quantize(weights=bits, where="path('a')"), Quantize(by=kind))
        if name:
            assert [decision.name for decision in Space(recipe, graph).decisions] == ["by", "bits"]
        else:
            with pytest.raises(OptionError, match="stands later and has no name"):
                Space(recipe, graph)


def test_targets_and_numbers(graph):
    recipe = Recipe(Factorize(rank=between(1, 3)), target=planish.Cpu(threads=choose(1, 2)))
    space = Space(recipe, graph)
    assert space.size == 6
    filled = space.fill({"factorize.rank": 2, "target.threads": 2})
    assert (filled.steps[0].rank, filled.target) == (2, planish.Cpu(threads=2))
    endless = Space(Recipe(PruneStructured(amount=between(0.1, 0.6))), graph)
    assert endless.size is None
    with pytest.raises(OptionError, match="without a step"):
        list(endless.points())


def test_a_model_with_decisions_of_its_own():
    def model(width, deep=False):
        act = choose("relu", "gelu", name="act")
        how = choose("none", "tanh", name="approximate") if act == "gelu" else ""
        layer = nn.ReLU() if act == "relu" else nn.GELU(how)
        return planish.capture(nn.Sequential(nn.Linear(4, width), layer), (torch.randn(2, 4),))

    space = Space(Recipe(Quantize("int8"), arguments={"width": choose(8, 16)}), model=model)
    assert space.size == 6  # the approximation is asked for gelu only
    recipe = space.fill({"width": 16, "act": "gelu", "approximate": "tanh"})
    assert recipe.arguments == {"width": 16, "act": "gelu", "approximate": "tanh"}
    one, two = (space.made(lambda d: {"width": 16, "act": "relu"}[d.name]).graph for _ in range(2))
    assert one is two  # equal answers, one model


def test_a_function_in_the_style_of_optuna():
    def model(trial):
        width = trial.suggest_int("width", 4, 16, step=4)
        act = {"relu": nn.ReLU, "tanh": nn.Tanh}[trial.suggest_categorical("act", ["relu", "tanh"])]
        trial.suggest_float("slope", 0.01, 1.0, log=True)
        return planish.capture(nn.Sequential(nn.Linear(4, width), act()), (torch.randn(2, 4),))

    space = Space(Recipe(Quantize("int8")), model=model)
    assert [(decision.name, decision.count) for decision in space.decisions] == [
        ("width", 4),
        ("act", 2),
        ("slope", None),
    ]


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_points_sampled_can_be_filled_and_have_one_name(graph, seed):
    shares = PruneStructured(amount=between(0.2, 0.5, step=0.1), round_to=1, compensate=False, by="magnitude")
    space = Space(Recipe(choose(None, shares), Quantize(weights=each(*BITS))), graph)
    point = space.sample(seed)
    assert space.sample(seed) == point
    recipe = space.fill(point)
    assert not recipe.is_open
    assert Recipe.from_data(tomllib.loads(recipe.to_toml())) == recipe
    assert point_id(point) == point_id(dict(reversed(point.items())))


def test_a_space_survives_its_file(graph):
    kind = choose("rtn", "gptq")
    recipe = Recipe(
        choose(None, Prune(choose("2:4", 0.5))),
        Quantize(weights=each(*BITS), by=kind),
        target=planish.Fpga(clock=choose("100MHz", "150MHz", when=kind.among("rtn"))),
        name="all",
    )
    space = Space(recipe, graph)
    again = Space(Recipe.from_data(tomllib.loads(recipe.to_toml())), graph)
    assert again.size == space.size
    for mine, other in itertools.islice(zip(space.points(), again.points(), strict=True), 20):
        assert space.fill(mine) == again.fill(other)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (lambda: Recipe(Quantize("int8")), "nothing to decide"),
        (
            lambda: Recipe(Quantize(weights=each("int4", "int99"))),
            r"1 to 32 bits, not 99(.|\n)*quantize.weights\[a\] = int99",
        ),
        (lambda: Recipe(Quantize(weights=each("int4", "int8"), where="conv")), "matches no"),
        (
            lambda: Recipe(Replace(by=each("keep", "relu"))),
            r"'relu' cannot stand here(.|\n)*replace.by\[a\] = relu",
        ),
        (
            lambda: Recipe(Quantize("int8"), Prune(each(0.5, "2:3"))),
            r"4 input channels are no whole runs of 3(.|\n)*prune.sparsity\[a\] = 2:3",
        ),
        (
            lambda: Recipe(Quantize(weights=choose("int4", "int8", name="x"), by=choose("rtn", "gptq", name="x"))),
            "two decisions are called 'x'",
        ),
    ],
)
def test_a_bad_space_is_refused_at_once(graph, recipe, said):
    with pytest.raises(OptionError, match=said):
        Space(recipe(), graph)


def test_bad_points_are_refused(graph):
    space = Space(Recipe(Quantize(weights=choose(*BITS, name="bits"))), graph)
    with pytest.raises(OptionError, match=r"does not decide 'bits'"):
        space.fill({})
    with pytest.raises(OptionError, match=r"no decision 'bit'"):
        space.fill({"bit": "int4"})
    with pytest.raises(OptionError, match=r"'int3' is no answer(.|\n)*int2, int4, int8"):
        space.fill({"bits": "int3"})


def test_a_recipe_with_holes_does_nothing_by_itself(graph):
    with pytest.raises(OptionError, match="the recipe has holes"):
        Recipe(Quantize(weights=choose("int4", "int8")))(graph)


def test_a_decision_says_what_it_is_about():
    decision = Decision("rank", ("a", "b"), None, (("kind", ("svd",)),))
    assert str(decision) == "a, b   if kind is svd"
    assert decision.made({"kind": "svd"})
    assert not decision.made({})
