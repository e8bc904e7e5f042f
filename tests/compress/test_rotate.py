"""Rotate: equal outputs wherever the rotation goes, and fewer bits enough where channels differ."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from planish.compress import Prune, Quantize
from planish.compress.hadamard import rotation, turned
from planish.compress.rotate import Rotate
from planish.compress.stream import find_stream
from planish.errors import OptionError
from planish.frontends import capture
from planish.graph import Graph
from planish.recipe import Recipe
from tests.compress.models import attention, error, items
from tests.support import require


class Block(nn.Module):
    """A block whose norms stand before the layers, with or without a mean."""

    def __init__(self, width: int, norm: type[nn.Module]) -> None:
        super().__init__()
        self.first, self.second = norm(width), norm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        split = [p(h).unflatten(-1, (4, -1)).transpose(1, 2) for p in (self.query, self.key, self.value)]
        x = x + self.out(nn.functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2))
        return x + self.down(nn.functional.gelu(self.up(self.second(x))))


class Language(nn.Module):
    """Tokens and positions, blocks, a norm, and scores; gains, biases and outlier channels as after training."""

    def __init__(self, norm: type[nn.Module], width: int = 24) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(20, width), nn.Parameter(torch.randn(6, width))
        self.blocks = nn.ModuleList(Block(width, norm) for _ in range(2))
        self.norm, self.head = norm(width), nn.Linear(width, 20, bias=False)
        for name, parameter in self.named_parameters():
            if "norm" in name or "first" in name or "second" in name:
                parameter.data += 0.5 * torch.rand_like(parameter)
        for table in (self.tokens.weight, self.places):
            table.data[:, ::11] *= 20

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.places
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def language(norm: type[nn.Module]) -> tuple[Graph, Tensor]:
    torch.manual_seed(0)
    ids = torch.randint(0, 20, (3, 6))
    return capture(Language(norm).eval(), (ids,)), ids


def off(graph: Graph, other: Graph, *args: Tensor) -> float:
    exact = graph(*args)
    return float((other(*args) - exact).norm() / exact.norm())


@pytest.mark.parametrize("size", [1, 2, 11, 12, 22, 24, 64, 100, 384])
def test_rotations_are_orthogonal(size):
    matrix = rotation(size)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(size, dtype=torch.float64))
    if size in (2, 12, 24, 64, 384):
        torch.testing.assert_close(matrix.abs(), torch.full_like(matrix, size**-0.5))
    x = torch.randn(3, 2 * size)
    wanted = (x.double().view(3, 2, size) @ matrix).view(3, -1).float()
    torch.testing.assert_close(turned(x, matrix, -1), wanted)


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
def test_a_stream_is_rotated_whole(norm):
    graph, ids = language(norm)
    rotated = Rotate()(graph)
    assert off(graph, rotated, ids) < 1e-5
    stream = find_stream(graph, [node for node in graph.nodes if node.op == "linear"])
    assert len(stream.norms) == 5
    assert {node.op for node in rotated.nodes} >= {"rms_norm"}
    assert "layer_norm" not in {node.op for node in rotated.nodes}
    products = [node.path for node in rotated.nodes if node.op == "matmul"]
    assert products == ["blocks.0.down", "blocks.1.down"]  # heads and stream cost nothing
    assert not torch.equal(rotated.tensors["blocks.0.value.weight"], graph.tensors["blocks.0.value.weight"])
    actions = " ".join(step.action for step in Rotate(online=False).plan(graph))
    assert "24 channels rotated, 5 norms folded" in actions
    assert "heads rotated in blocks.1.value" in actions
    assert "multiplied" not in actions


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
@pytest.mark.parametrize(("text", "less"), [("int4", 0.8), ("mxfp4", 1.0)])  # groups keep outliers apart already
def test_four_bits_hold_more(norm, text, less):
    graph, ids = language(norm)
    quantize = Quantize(text, f"{text}~dynamic", where="linear")
    plain, rotated = (off(graph, recipe(graph), ids) for recipe in (quantize, Recipe(Rotate(), quantize)))
    assert rotated < less * plain


@pytest.mark.parametrize("block", [None, 16])
def test_in_front_of_layers_where_a_norm_is_shared(block):
    graph = attention()  # its norms are read by the residual too
    rotated = Rotate(block=block)(graph)
    assert error(graph, rotated) < 1e-6
    assert {name.partition("__")[0] for name in rotated.tensors if name.endswith("__h")} == {
        f"{layer}.input" for layer in ("query", "up", "down")
    }
    if block is None:
        quantize = Quantize("int4", "int4~dynamic", where="linear")
        assert error(graph, quantize(rotated)) < error(graph, quantize(graph))


def test_a_block_that_does_not_divide_the_channels_mixes_as_many_as_do():
    graph = attention()
    actions = " ".join(step.action for step in Rotate(block=24).plan(graph))
    assert "multiplied by a rotation of 8" in actions
    assert error(graph, Rotate(block=24)(graph)) < 1e-6


def test_a_llama_is_rotated():
    hf = require("transformers")
    torch.manual_seed(0)
    config = hf.LlamaConfig(vocab_size=32, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                            num_attention_heads=4, num_key_value_heads=4, tie_word_embeddings=False)  # fmt: skip

    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = hf.LlamaForCausalLM(config)

        def forward(self, ids: Tensor) -> Tensor:
            return self.model(input_ids=ids, use_cache=False).logits

    ids = torch.randint(0, 32, (2, 7))
    graph = capture(Scores().eval(), (ids,))
    rotated = Rotate()(graph)
    assert off(graph, rotated, ids) < 1e-5
    assert [node.path.rpartition(".")[2] for node in rotated.nodes if node.op == "matmul"] == ["down_proj"] * 2


def test_a_rotated_graph_trains_and_is_saved(tmp_path):
    graph, ids = language(nn.LayerNorm)
    rotated = Recipe(Rotate(), Quantize("int8", where="linear"))(graph, items(attention()))
    rotated.module()(ids).sum().backward()
    rotated.save(tmp_path / "x.planish")
    assert torch.equal(Graph.load(tmp_path / "x.planish")(ids), rotated(ids))


def test_bad_input():
    graph = attention()
    with pytest.raises(OptionError, match="2 channels"):
        Rotate(block=1)
    with pytest.raises(OptionError, match="before Quantize"):
        Rotate().plan(Quantize("int8")(graph))


def test_heads_that_a_mask_keeps_apart_are_not_mixed():
    graph = attention()
    assert "out" in {step.path for step in Rotate(online=False).plan(graph)}
    with pytest.raises(OptionError, match="no linear layer whose input can be rotated"):
        Rotate(online=False).plan(Prune("2:4", where="path('value')")(graph))
