"""What every recipe must keep, whatever passes it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch.utils import _pytree as pytree

from planish.formats import Int
from planish.graph import Graph, Pass
from planish.graph.evaluate import fold
from planish.recipe import Recipe
from planish.rewrite import FoldConstants
from planish.targets.cpu import ENGINES
from planish.targets.cpu.check import difference
from planish.targets.cpu.engine import Options
from planish.targets.cpu.signature import Signature


def applied(graph: Graph, steps: Sequence[Pass], data: list, folder: Path) -> Graph:
    """Apply the passes, hold the result to everything but its build, and return it."""
    recipe = Recipe(*steps)
    assert str(recipe.plan(graph))
    before = {name: tensor.detach().clone() for name, tensor in graph.tensors.items()}
    small = recipe(graph, data)
    assert all(torch.equal(graph.tensors[name], tensor) for name, tensor in before.items()), "the graph given changed"
    answers(small)
    trains(small)
    saves(small, folder)
    folds(small)
    return small


def answers(graph: Graph) -> list[torch.Tensor]:
    """Finite numbers, on the example and on a larger batch."""
    args, kwargs = graph.example
    results = tensors(graph(*args, **kwargs))
    assert results
    assert all(bool(torch.isfinite(result).all()) for result in results)
    if graph.dynamic:
        more = graph(*(torch.cat([x, x.flip(0), x]) for x in args), **kwargs)
        assert [len(one) for one in tensors(more)] == [3 * len(one) for one in results]
    return results


def trains(graph: Graph) -> None:
    """One step moves a parameter, and numbers stay finite; the graph itself stays."""
    args, kwargs = graph.example
    exact = tensors(graph(*args, **kwargs))
    net = graph.module().train()
    learning = [parameter for parameter in net.parameters() if parameter.requires_grad]
    start = [parameter.detach().clone() for parameter in learning]
    optimizer = torch.optim.SGD(learning, lr=1e-2)
    sum(((one - 1) ** 2).mean() for one in tensors(net(*args, **kwargs))).backward()
    optimizer.step()
    moved = [not torch.equal(one, other) for one, other in zip(start, learning, strict=True)]
    assert any(moved), "no parameter learns"
    assert all(bool(torch.isfinite(one).all()) for one in tensors(net.eval()(*args, **kwargs)))
    for one, other in zip(exact, tensors(graph(*args, **kwargs)), strict=True):
        assert torch.equal(one, other), "training changed the graph"


def saves(graph: Graph, folder: Path) -> None:
    """What is loaded computes the same."""
    graph.save(folder / "small.planish")
    args, kwargs = graph.example
    again = Graph.load(folder / "small.planish")
    for one, other in zip(tensors(graph(*args, **kwargs)), tensors(again(*args, **kwargs)), strict=True):
        assert torch.equal(one, other), "the loaded graph computes something else"


def folds(graph: Graph) -> None:
    """Expressions fold to tensors with the same answers; under the user's names they are finite."""
    args, kwargs = graph.example
    plain = FoldConstants(parameters=True)(graph)
    for one, other in zip(tensors(graph(*args, **kwargs)), tensors(plain(*args, **kwargs)), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in graph.base_state_dict().values())


def builds(graph: Graph, engine: str = "onnxruntime") -> None:
    """The engine computes what the graph says, on the codes that the graph has."""
    maker = ENGINES[engine]()
    assert maker.unsupported(graph) == []
    compiled = maker.compile(graph, Options(exact=maker.has_exact))
    args, kwargs = graph.example
    results = compiled(Signature.of(graph).flatten(args, kwargs))
    assert difference(results, tensors(graph(*args, **kwargs))).relative < 0.05
    codes = [_sorted(codes) for codes in _codes(graph)]
    (file,) = [content for name, content in compiled.files.items() if name.endswith(".onnx")]
    stored = [_sorted(numpy_helper.to_array(one)) for one in onnx.load_from_string(file).graph.initializer]
    for wanted in codes:
        assert any(len(one) == len(wanted) and np.array_equal(one, wanted) for one in stored), "codes differ"


def _codes(graph: Graph) -> list[torch.Tensor]:
    """The integer codes of weights of 8 bits that a layer reads as they are."""
    found = []
    for node in {layer.weight: layer for layer in graph.nodes if layer.weight is not None}:
        form = node.format if node.op == "cast" else None
        whole = form is not None and isinstance(form.element, Int) and form.element.bits == 8 and form.offset is None
        value = fold(graph, node.inputs[0].fx) if whole else None
        if value is not None:
            parameters = [graph.tensors[str(place.target)] for place in node.args[1]]
            found.append(form.encode(value, parameters).codes)
    return found


def _sorted(values: torch.Tensor | np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # a constant may be infinite
        return np.sort(np.asarray(values).astype(np.int64, casting="unsafe").ravel() & 255)


def tensors(output: object) -> list[torch.Tensor]:
    """The floating tensors of an answer."""
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]
