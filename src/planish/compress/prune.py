"""Prune: set single weights, runs or blocks of them to zero, by any of six criteria."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from planish.analysis import weights
from planish.compress.expression import assign, solvable
from planish.compress.pruning.admm import admm
from planish.compress.pruning.allocate import best_of_all
from planish.compress.pruning.gradients import saliencies
from planish.compress.pruning.masks import distinct, has_own_bias, is_own, set_masks, with_masks
from planish.compress.pruning.matrix import from_matrix, groups, has_inputs, inputs, to_matrix
from planish.compress.pruning.problem import problems
from planish.compress.pruning.sparsegpt import refit, sparsegpt
from planish.compress.pruning.sparsity import Sparsity
from planish.compress.sites import replace_tensor, roles, weight_name, weight_of, weighted
from planish.compress.sweep import Read, sweep
from planish.errors import DataError, OptionError
from planish.graph import Data, Graph, Node, Pass, Progress, Selector, Step, parse_selector

Criterion = Literal["magnitude", "random", "snip", "movement", "wanda", "sparsegpt", "admm"]
Solver = Callable[[Tensor, Tensor, Sparsity, Tensor], tuple[Tensor, Tensor]]
SOLVERS: Mapping[str, Solver] = {"sparsegpt": sparsegpt, "admm": admm}
CALIBRATED = ("wanda", *SOLVERS)
MOST = 0.99
"""The largest share that a common threshold takes from one layer."""


@dataclass(frozen=True)
class Prune(Pass):
    """Multiply weights with masks of zeros and ones.

    The mask stands outside what is there already: a quantized weight becomes `cast(w) * mask`. Weights that are zero
    stay zero, so that pruning again only ever prunes more.

    Attributes:
        sparsity: "50%" or 0.5, a share of each weight; "2:4", all but 2 of each 4 neighbors along the input channels;
            "50% 4x1", a share of the blocks of 4 output by 1 input channels.
        by: What decides. "magnitude": the smallest go. "random": the baseline. "snip" (arXiv 1810.02340) and "movement"
            (arXiv 2005.07683): by gradients, of the targets in the data or else of the distance to the original's
            output. "wanda" (arXiv 2306.11695): magnitude times the size of the input, within each output. "sparsegpt"
            (arXiv 2301.00774): by what is lost once the other weights, and the bias, make up for it; they aim at the
            exact model's outputs, on the inputs that the pruned one really gives, and at what earlier layers have left
            in the residual that the output is added to. "admm" (arXiv 2406.07831): the same, the zeros being chosen
            all together, in thrice the time. The last three look at calibration data, linear layers and convolutions
            only; a weight that something else reads too keeps its values and is pruned as by "wanda".
        where: The layers.
        scope: "layer" takes the share from each weight, "global" from all together: by the scores themselves, or for
            the calibrated three as many from each as Wanda's scores would take, in units of each layer's output.
        seed: Of "random", and of the noise of "snip".
    """

    sparsity: Sparsity | str | float = "50%"
    by: Criterion = "magnitude"
    where: Selector | str = "linear | conv"
    scope: Literal["layer", "global"] = "layer"
    seed: int = 0

    def __post_init__(self) -> None:
        given = self.sparsity
        parsed = Sparsity(float(given)) if isinstance(given, int | float) else given
        object.__setattr__(self, "sparsity", Sparsity.parse(parsed) if isinstance(parsed, str) else parsed)
        object.__setattr__(self, "where", parse_selector(self.where))
        if self.by not in get_args(Criterion):
            raise OptionError(f"unknown criterion {self.by!r}", "by", f"one of {', '.join(get_args(Criterion))}")
        if self.scope not in ("layer", "global"):
            raise OptionError(f"unknown scope {self.scope!r}", "scope", "'layer' or 'global'")
        if self.scope == "global" and self._sparsity.run:
            raise OptionError(f"{self.sparsity} takes the same share from each layer", "scope", "scope='layer'")

    @property
    def _sparsity(self) -> Sparsity:
        assert isinstance(self.sparsity, Sparsity)
        return self.sparsity

    def plan(self, graph: Graph) -> list[Step]:
        """One step for each weight; its bytes afterwards are those of a bit mask and of the numbers that stay."""
        layers = [readers[0] for readers in distinct(self._layers(graph)).values()]
        before, after = _bytes(graph, layers), _bytes(self.draft(graph), layers)
        return [
            Step(layer.path, layer.name, f"{weight_name(layer).rpartition('.')[2]} {self._action}", old, new)
            for layer, old, new in zip(layers, before, after, strict=True)
        ]

    def draft(self, graph: Graph) -> Graph:
        """The graph with masks of as many zeros, the smallest weights' instead of the chosen ones'."""
        masked, names = with_masks(graph, self._layers(graph))
        self._mask(masked, names, {name: _scores(masked.node(name)) for name in names})
        return masked

    def apply(self, graph: Graph, data: Data | None, progress: Progress) -> Graph:
        """The pruned graph."""
        masked, names = with_masks(graph, self._layers(graph))
        if self.by in CALIBRATED:
            shares = dict.fromkeys(names, self._sparsity)
            if self.scope == "global":
                shares = self._shares(masked, names, data, progress)
            self._sweep(masked, names, shares, data, progress)
        elif self.by in ("snip", "movement"):
            found = saliencies(masked, names.values(), data, self.by, self.seed, progress)
            self._mask(masked, names, {n: _scores(masked.node(n), found[mask]) for n, mask in names.items()})
        else:
            noise = torch.Generator().manual_seed(self.seed) if self.by == "random" else None
            self._mask(masked, names, {name: _scores(masked.node(name), noise=noise) for name in names})
        progress(len(names), len(names), "")
        return masked

    @property
    def _action(self) -> str:
        return f"pruned to {self.sparsity} by {self.by}" + (" of all" if self.scope == "global" else "")

    def _layers(self, graph: Graph) -> list[Node]:
        layers = weighted(graph, self.where)
        if self.by in CALIBRATED:
            layers = [layer for layer in layers if has_inputs(layer)]
            if not layers:
                raise OptionError(f"no layer has inputs that {self.by} could look at", "where", "by='magnitude'")
        dense = []
        for layer in layers:
            value = weight_of(layer)
            assert value is not None
            self._check(layer, value)
            if not self._sparsity.fits(to_matrix(layer, value) != 0):
                dense.append(layer)
        if not dense:
            raise OptionError(
                f"every layer that {str(self.where)!r} matches is as sparse as {self.sparsity} already", "sparsity"
            )
        return dense

    def _check(self, layer: Node, value: Tensor) -> None:
        if not bool(torch.isfinite(value).all()):
            raise DataError("a weight holds NaN or infinity", weight_name(layer), "repair the model first")
        rows, columns = to_matrix(layer, value).shape
        along = value.shape[roles(layer).in_axis] if self._sparsity.run else columns
        if refusal := self._sparsity.refusal((rows, along)):
            raise OptionError(refusal, layer.path or layer.name, "leave the layer out: where='linear & ~path(...)'")

    def _mask(self, graph: Graph, names: Mapping[str, str], scores: dict[str, Tensor]) -> None:
        if self.scope == "global":
            kept = best_of_all(scores, self._sparsity)
        else:
            kept = {name: self._sparsity.keep(score) for name, score in scores.items()}
        set_masks(graph, {names[name]: from_matrix(graph.node(name), mask) for name, mask in kept.items()})

    def _shares(
        self, graph: Graph, names: Mapping[str, str], data: Data | None, progress: Progress
    ) -> dict[str, Sparsity | None]:
        scores: dict[str, Tensor] = {}

        def visit(node: Node, read: Read) -> None:
            progress(len(scores), 2 * len(names), node.path)
            assert node.input is not None
            scores[node.name] = _wanda(node, [batch.exact for batch in read(node.input)], in_units=True)

        sweep(graph, data, visit, names, "Prune", casts=False)
        kept = best_of_all(scores, self._sparsity)
        shares = {name: 1 - float(mask.float().mean()) for name, mask in kept.items()}
        return {n: replace(self._sparsity, amount=min(share, MOST)) if share else None for n, share in shares.items()}

    def _sweep(
        self,
        graph: Graph,
        names: Mapping[str, str],
        shares: Mapping[str, Sparsity | None],
        data: Data | None,
        progress: Progress,
    ) -> None:
        done = 0

        def visit(node: Node, read: Read) -> None:
            nonlocal done
            progress(done, len(names), node.path)
            done += 1
            sparsity = shares[node.name]
            if sparsity is None:
                return
            if self.by in SOLVERS and node.weight is not None and is_own(node) and solvable(node.weight.fx):
                _compensate(graph, node, read, sparsity, SOLVERS[self.by], names[node.name])
            else:
                assert node.input is not None
                scores = _wanda(node, [batch.actual for batch in read(node.input)])
                set_masks(graph, {names[node.name]: from_matrix(node, sparsity.keep(scores, by_row=True))})

        sweep(graph, data, visit, names, "Prune")


def _bytes(graph: Graph, layers: list[Node]) -> list[int]:
    """What storing each layer's weight takes; one that an earlier layer reads in the same way is listed as that's."""
    known = weights(graph)
    by_name = {weight.name: weight.nbytes for weight in reversed(known)}
    by_use = {(weight.name, weight.path): weight.nbytes for weight in known}
    names = [(weight_name(layer), layer.path) for layer in layers]
    return [by_use.get(name, by_name[name[0]]) for name in names]


def _scores(layer: Node, values: Tensor | None = None, noise: torch.Generator | None = None) -> Tensor:
    """Scores as a matrix: those given for each weight, random ones, or magnitudes; -inf where the weight is zero."""
    weight = weight_of(layer)
    assert weight is not None
    if noise is not None:
        values = torch.rand(weight.shape, generator=noise)
    scores = weight.abs() if values is None else values
    return to_matrix(layer, scores.float().masked_fill(weight == 0, -torch.inf))


def _wanda(layer: Node, values: list[Tensor], in_units: bool = False) -> Tensor:
    """Wanda's score, magnitude times the norm of the input (its equation 1), -inf where the weight is zero.

    Args:
        layer: A linear layer or convolution.
        values: What comes in.
        in_units: Divide by the norm that the output would have were inputs independent of each other, so that layers
            compare.
    """
    weight = weight_of(layer)
    assert weight is not None
    matrix = to_matrix(layer, weight)
    squares = torch.zeros(groups(layer), matrix.shape[1], dtype=torch.float64)
    for value in values:
        squares += torch.stack([part.square().sum(0, dtype=torch.float64) for part in inputs(layer, value)])
    norms = squares.sqrt().float().repeat_interleave(len(matrix) // groups(layer), 0)
    scores = matrix.abs().float() * norms
    if in_units:
        scores /= scores.norm().clamp_min(torch.finfo(torch.float32).tiny)
    return scores.masked_fill(matrix == 0, -torch.inf)


def _compensate(graph: Graph, layer: Node, read: Read, sparsity: Sparsity, solve: Solver, mask: str) -> None:
    """Prune a layer so that the rest makes up for it: its mask, its other weights, and its bias if that is its own."""
    weight = weight_of(layer)
    assert weight is not None
    assert layer.weight is not None
    moves_bias = has_own_bias(layer)
    values, kept, bias = [], [], []
    allowed = to_matrix(layer, weight != 0).chunk(groups(layer))
    for problem, free in zip(problems(layer, read, moves_bias), allowed, strict=True):
        found, stays = solve(problem.best, problem.gram, sparsity, free)
        fitted = refit(found, stays, problem.best, problem.gram)
        values.append(fitted)
        kept.append(stays)
        bias.append(problem.target - fitted.double() @ problem.input)
    set_masks(graph, {mask: from_matrix(layer, torch.cat(kept))})
    assign(graph, layer.weight.fx, from_matrix(layer, torch.cat(values)).to(weight.dtype))
    if moves_bias and layer.bias is not None:
        name = str(layer.bias.target)
        replace_tensor(graph, name, torch.cat(bias).to(graph.tensors[name].dtype))
