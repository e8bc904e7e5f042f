"""What a `.planish` file stores of cast and masked weights: as many bytes as said, equal outputs, and no lies."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from planish.analysis import weights
from planish.compress import Prune, Quantize
from planish.errors import UntrustedFile
from planish.graph import Graph
from planish.graph.sparse import pack_mask, unpack_mask
from planish.recipe import Recipe
from tests.compress import models
from tests.compress.models import items

FORMATS = ["int8", "int4@g16*float16", "nf4", "nvfp4", "e4m3", "q4_k", "lut4@channel0", "int3@channel0&int3@g16",
           "binary"]  # fmt: skip


mlp = cache(models.mlp)


def contents(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()["planish"])


def stored_bytes(path: Path, name: str) -> int:
    """Of everything that belongs to a weight."""
    tensors, _ = contents(path)
    mine = [t for key, t in tensors.items() if key.removeprefix("packed:").startswith(name)]
    return sum(tensor.numel() * tensor.element_size() for tensor in mine)


def roundtrip(graph: Graph, path: Path, whole: bool = False) -> Graph:
    graph.save(path, whole)
    loaded = Graph.load(path)
    args = items(graph, 1)[0][0]
    assert torch.equal(loaded(*args), graph(*args))
    for name, tensor in graph.base_state_dict().items():
        assert torch.equal(loaded.base_state_dict()[name], tensor)
    assert loaded.parameter_names == graph.parameter_names
    loaded.module().train()(*args).sum().backward()
    return loaded


@pytest.mark.parametrize("form", FORMATS)
def test_quantized_weights_take_the_bytes_of_their_codes(form, tmp_path):
    small = Quantize(weights=form)(mlp())
    roundtrip(small, tmp_path / "q.planish")
    for weight in weights(small):
        assert stored_bytes(tmp_path / "q.planish", weight.name) <= weight.nbytes


@pytest.mark.parametrize("sparsity", ["2:4", "50%", "90%", "50% 1x4"])
@pytest.mark.parametrize("form", [None, "int4@g16*float16"])
def test_pruned_weights_take_a_bit_a_weight_and_the_rest(sparsity, form, tmp_path):
    steps = [Prune(sparsity)] + ([Quantize(weights=form)] if form else [])
    for recipe in (Recipe(*steps), Recipe(*reversed(steps))):
        small = recipe(mlp())
        roundtrip(small, tmp_path / "p.planish")
        for weight in weights(small):
            saved = {"2:4": 8 / 32, "50% 1x4": 1 / 8}.get(sparsity, 0) * math.prod(weight.shape) / 8  # runs in a table
            assert stored_bytes(tmp_path / "p.planish", weight.name) <= weight.nbytes - saved + 3


def test_whole_files_keep_what_is_hidden(tmp_path):
    graph = mlp()
    small = Recipe(Prune("2:4"), Quantize(weights="int4"))(graph)
    for whole in (True, False):
        loaded = roundtrip(small, tmp_path / "w.planish", whole)
        assert torch.equal(loaded.tensors["0.weight"], small.tensors["0.weight"]) == whole
    assert (tmp_path / "w.planish").stat().st_size > 0
    rounded = Quantize(weights="int4", by="gptq")(graph, items(graph))  # its weights are numbers of the format
    again = roundtrip(rounded, tmp_path / "g.planish", whole=True)
    assert torch.equal(again.tensors["0.weight"], rounded.tensors["0.weight"])
    assert "packed:0.weight:numbers" in contents(tmp_path / "g.planish")[0]


def test_tied_and_shared_weights(tmp_path):
    graph = mlp()
    graph = graph.replace(tensors={**graph.tensors, "alias": graph.tensors["0.weight"]})
    small = Recipe(Prune("50%"), Quantize(weights="int8"))(graph)
    roundtrip(small, tmp_path / "t.planish")


@settings(max_examples=60)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(0, 99),
    st.sampled_from(["half", "few", "runs", "none", "all"]),
)  # fmt: skip
def test_masks_come_back(shape, seed, kind):
    draw = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    mask = {"half": draw > 0.5, "few": draw > 0.95, "none": draw > 2, "all": draw > -1,
            "runs": (torch.arange(draw.numel()) // 4 % 2 == 0).view(shape)}[kind]  # fmt: skip
    parts, run = pack_mask(mask)
    assert sum(map(len, parts.values())) <= -(-mask.numel() // 8)
    assert torch.equal(unpack_mask(parts, run, tuple(shape), ""), mask)


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    small = Recipe(Prune("2:4"), Quantize(weights="int4@g16*float16"))(mlp())
    path = tmp_path_factory.mktemp("honest") / "m.planish"
    small.save(path)
    return path


def _row(kind: str, /, **changes):
    def change(tensors: dict, document: dict) -> None:
        next(row for row in document["packed"].values() if row["kind"] == kind).update(changes)

    return change


def _cut(ending: str, replaced=lambda tensor: tensor[:-1]):
    def change(tensors: dict, document: dict) -> None:
        name = next(name for name in tensors if name.endswith(ending))
        tensors[name] = replaced(tensors[name])

    return change


@pytest.mark.parametrize(
    "change",
    [
        _row("mask", shape=[64, 64]), _row("mask", shape=[1 << 50, 1 << 50]), _row("mask", shape=[-1]),
        _row("mask", shape="ab"), _row("mask", run=3), _row("mask", run=1 << 40), _row("mask", kind="code"),
        _row("numbers", shape=[16, 64]), _row("numbers", mask="0.bias"), _row("numbers", mask="absent"),
        _row("numbers", mask=""), _row("numbers", dtype="int8"), _row("numbers", dtype="load"),
        _row("numbers", dtype="os.system"), _row("numbers", format="int7"), _row("numbers", format="x"),
        _row("numbers", parameters=[]), _row("numbers", parameters=["0.bias"]), _row("level", level=7),
        _row("level", format="int4@g16"), _row("level", shape=[1 << 39, 1 << 39]),
        _cut(":numbers"), _cut(":runs"), _cut(":codes"), _cut(":numbers", lambda t: t.to(torch.int32)),
        _cut(":table", lambda t: t[:0]), _cut(":table"), _cut(":runs", lambda t: t | 255),
        lambda tensors, document: tensors.pop(next(n for n in tensors if n.endswith(":numbers"))),
        lambda tensors, document: document.pop("packed"),
        lambda tensors, document: document.update(packed=[1]),
        lambda tensors, document: document["packed"].update({"__class__.x": document["packed"].pop("0.weight")}),
    ],
)  # fmt: skip
def test_lies_are_refused(change, honest, tmp_path):
    tensors, document = contents(honest)
    change(tensors, document)
    save_file(tensors, tmp_path / "bad.planish", metadata={"planish": json.dumps(document)})
    with pytest.raises(UntrustedFile):
        Graph.load(tmp_path / "bad.planish")
