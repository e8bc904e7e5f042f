"""Four studies, each one command with its figure: best accuracy so far against trials.

    python -m benchmarks.search.studies samplers     # grid, random, TPE and auto on a small transformer
    python -m benchmarks.search.studies aware        # compressing inside the trials, with and without training after it
    python -m benchmarks.search.studies widths       # whole and fraction bits of each layer
    python -m benchmarks.search.studies formats      # one curve for each number format

All on scikit-learn's digits: 1,000 to train on, 147 that a search sees, 500 that nothing is chosen on. The transformer
reads an image as eight tokens, its rows. Figures and numbers go to benchmarks/results/search/studies.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import torch
from torch import Tensor, nn

import planish
from benchmarks.search import curves
from planish import Recipe
from planish.automl import choose, each
from planish.automl.search import Found, search
from planish.compress import Prune, Quantize
from planish.formats import fixed
from planish.metrics import accuracy
from planish.models import digits, models
from planish.record import environment
from planish.training import Fit

RESULTS = Path(__file__).parents[1] / "results" / "search" / "studies"
SHAPE = (8, 8)
SEEDS = 3
FORMATS = ("int4", "e2m1", "mxfp4", "nvfp4", "nf4", "ternary", "binary", "int8")


class Transformer(nn.Module):
    """Eight tokens of eight numbers to ten classes.

    Args:
        layers: Encoder layers.
        heads: Of each.
        width: Of a token.
        ratio: Width of the feed-forward layer over that of a token.
    """

    def __init__(self, layers: int, heads: int, width: int, ratio: int) -> None:
        super().__init__()
        self.embed, self.places = nn.Linear(8, width), nn.Parameter(0.02 * torch.randn(8, width))
        self.layers = nn.ModuleList(Layer(place, heads, width, ratio) for place in range(layers))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x) + self.places
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(1))


class Layer(nn.Module):
    """Attention and a feed-forward layer, the second of whose two products may be left out."""

    def __init__(self, place: int, heads: int, width: int, ratio: int) -> None:
        super().__init__()
        self.heads, self.norms = heads, nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        kind = choose("linear", "identity", name=f"project {place}")
        self.project = nn.Linear(width, width) if kind == "linear" else nn.Identity()
        self.up, self.down = nn.Linear(width, ratio * width), nn.Linear(ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        parts = self.mix(self.norms[0](x)).reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.project(self.down(nn.functional.gelu(self.up(self.norms[1](x)))))


def transformer(layers: int, heads: int, width: int, ratio: int) -> planish.Graph:
    """An untrained one, captured."""
    model = Transformer(layers, heads, width, ratio)
    return planish.capture(model, (torch.randn(2, *SHAPE),), dynamic={"x": {0: "batch"}})


ARCHITECTURE = {
    "layers": choose(1, 2, name="layers"),
    "heads": choose(1, 2, 4, name="heads"),
    "width": choose(16, 24, 32, name="width"),
    "ratio": choose(1, 2, 3, name="ratio"),
}
TRAIN = Fit(epochs=4, learning_rate=8e-3, batch_size=50)


def found(recipe: Recipe, strategy: str, seed: int, trials: int, **more: Any) -> Found:
    """One search by accuracy on the validation digits."""
    data = {
        role: digits.batches(split, SHAPE) for role, split in (("calibration", "calibration"), ("training", "train"))
    }
    given = {"model": transformer, "validation": digits.batches("validation", SHAPE), **data, **more}
    return search(recipe, maximize="accuracy", budget=trials, strategy=strategy, seed=seed, **given)


def values(result: Found) -> list[float]:
    """Accuracy of each trial, in order."""
    return [trial.rows["accuracy"].value if "accuracy" in trial.rows else float("nan") for trial in result.trials]


def samplers(trials: int, seeds: int) -> dict[str, list[list[float]]]:
    """Strategies on the architecture, trained in each trial."""
    recipe = Recipe(TRAIN, arguments=ARCHITECTURE)
    names = ("grid", "random", "tpe", "auto")
    return {name: [values(found(recipe, name, seed, trials)) for seed in range(seeds)] for name in names}


def aware(trials: int, seeds: int) -> dict[str, list[list[float]]]:
    """The same search, of which what counts is the compressed model: 2-bit weights, half of them zero."""
    shrink = (Prune(0.5, by="magnitude"), Quantize("int2", where="linear"))
    within = {
        "compressed in the trial": Recipe(TRAIN, *shrink, arguments=ARCHITECTURE),
        "and trained after it": Recipe(
            TRAIN, *shrink, Fit(epochs=2, learning_rate=3e-3, batch_size=50), arguments=ARCHITECTURE
        ),
    }
    rows = {
        name: [values(found(recipe, "tpe", seed, trials)) for seed in range(seeds)] for name, recipe in within.items()
    }
    rows["compressed afterwards"] = [_afterwards(trials, seed, shrink) for seed in range(seeds)]
    return rows


def _afterwards(trials: int, seed: int, shrink: tuple[Any, ...]) -> list[float]:
    """A search by fp32 accuracy; after each trial, the compressed accuracy of the best so far."""
    result = found(Recipe(TRAIN, arguments=ARCHITECTURE), "tpe", seed, trials)
    best, reached, last = float("-inf"), [], float("nan")
    for trial, value in zip(result.trials, values(result), strict=True):
        if value > best:
            best = value
            small = Recipe(*shrink)(result.graph(trial), digits.batches("calibration", SHAPE))
            last = accuracy(small, digits.batches("validation", SHAPE)).value
        reached.append(last)
    return reached


def widths(trials: int, seeds: int) -> dict[str, list[list[float]]]:
    """Each layer of a trained perceptron in fixed point: 8, 16 or 32 bits, 2, 4 or 8 of them behind the point."""
    options = tuple(str(fixed(bits - frac - 1, frac)) for bits in (8, 16, 32) for frac in (2, 4, 8) if bits > frac)
    task = models["mlp"]()
    recipe = Recipe(Quantize(weights=each(*options)))
    data = {"model": None, "task": task, "calibration": None, "training": None, "validation": task.validation}
    return {
        name: [values(found(recipe, name, seed, trials, **data)) for seed in range(seeds)]
        for name in ("random", "tpe", "auto")
    }


def formats(trials: int, seeds: int) -> dict[str, list[list[float]]]:
    """The architecture with all its linear layers in one format, one search a format."""
    return {
        name: [
            values(found(Recipe(TRAIN, Quantize(name, where="linear"), arguments=ARCHITECTURE), "tpe", seed, trials))
            for seed in range(seeds)
        ]
        for name in FORMATS
    }


STUDIES: dict[str, tuple[Callable[..., dict[str, list[list[float]]]], str, int]] = {
    "samplers": (samplers, "A small transformer: strategies", 40),
    "aware": (aware, "2-bit weights, half of them zero: compressing within the search", 30),
    "widths": (widths, "Whole and fraction bits of each layer", 40),
    "formats": (formats, "One search for each format of the weights", 16),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--trials", type=int)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study, title, trials = STUDIES[given.study]
    rows = study(given.trials or trials, given.seeds)
    reached = {name: list(map(curves.best_so_far, each_)) for name, each_ in rows.items()}
    if given.study == "aware":  # what is chosen afterwards may get worse
        reached["compressed afterwards"] = rows["compressed afterwards"]
    curves.write(RESULTS / f"{given.study}.svg", title, "accuracy on 147 digits", reached)
    told = {
        "trials": given.trials or trials,
        "seeds": given.seeds,
        "accuracy": rows,
        "environment": environment(seed=0),
    }
    (RESULTS / f"{given.study}.json").write_text(json.dumps(told, indent=1) + "\n")
    for name, lines in reached.items():
        print(f"{name:26} {sorted(line[-1] for line in lines)[len(lines) // 2]:.4f}")


if __name__ == "__main__":
    main()
