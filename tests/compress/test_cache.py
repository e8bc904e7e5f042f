"""Quantize(cache=...): new keys and values are cast once, found by structure, alike in prefill and in decoding.

The oracle is transformers' own model with a cache whose `update` casts what it is given. Models are float64, so that no
number is rounded another way because two programs add in another order.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from planish import Recipe, config
from planish.compress import Adapt, Prune, Quantize, Rotate
from planish.compress.cache import caches
from planish.errors import EngineError, OptionError, UnknownName
from planish.formats import get
from planish.frontends import capture
from planish.graph import Graph
from planish.targets.cpu import Cpu
from planish.targets.cpu.generate import generate
from tests.compress.contract import folds, saves, trains
from tests.compress.models import attention, mlp
from tests.support import require

pytestmark = [pytest.mark.xdist_group("cache"), pytest.mark.long]  # one worker captures the models


def llama(layers: int = 2) -> nn.Module:
    transformers = require("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": layers}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **heads)).eval()


def gpt2() -> nn.Module:
    transformers = require("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
    others = {"bos_token_id": 0, "eos_token_id": 0, "attn_implementation": "eager"}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **others)).eval()


def captured(model: nn.Module, training: bool = False) -> Graph:
    """One step: two new tokens after three others."""
    from transformers import DynamicCache

    with torch.no_grad():
        cache = model(tokens(2, 3), use_cache=True, past_key_values=DynamicCache()).past_key_values
    example = {"input_ids": tokens(2, 2), "past_key_values": cache, "use_cache": True}
    dynamic = {"input_ids": {0: "batch", 1: "new"}, "past_key_values": {0: "batch", 2: "past"}}
    return capture(model, example, dynamic, training)


def tokens(batch: int, count: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 64, (batch, count), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def models() -> dict[str, tuple[nn.Module, Graph]]:
    found = {"llama": llama().double(), "gpt2": gpt2().double()}
    return {name: (model, captured(model)) for name, model in found.items()}


@pytest.fixture(scope="module")
def graph() -> Graph:
    return captured(llama(layers=1), training=True)


def casting(cast, layers: int = 0, shape: tuple[int, ...] = (), kind: torch.dtype = torch.float64):
    """A cache of transformers that holds `cast(role, layer, new)`; with `layers`, one of no tokens of that shape."""
    from transformers import DynamicCache

    class Casting(DynamicCache):
        def update(self, keys, values, layer, *args, **kwargs):
            return super().update(cast("keys", layer, keys), cast("values", layer, values), layer, *args, **kwargs)

    empty = DynamicCache() if layers else Casting()
    for layer in range(layers):
        empty.update(torch.empty(shape, dtype=kind), torch.empty(shape, dtype=kind), layer)
    return empty


def steps(run, cache, pieces) -> list[torch.Tensor]:
    """Logits of one call after the other, and at last all that the cache holds."""
    logits = []
    with torch.no_grad():
        for ids in pieces:
            output = run(input_ids=ids, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            logits.append(output.logits)
    return [*logits, *(tensor for layer in cache.layers for tensor in (layer.keys, layer.values))]


def empty(graph: Graph, batch: int):
    _, heads, _, features = caches(graph)[0].new.shape
    return casting(None, len(caches(graph)) // 2, (batch, heads, 0, features))


PIECES = [tokens(3, 5), *(tokens(3, 1, seed) for seed in range(2, 6))]
BY_TOKEN = ["int8", "uint8@token", "int4@g4", "e4m3", "fp8~dynamic", "mxfp4", "nvfp4", "nf4", "float16", "q4_k"]


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("text", BY_TOKEN)
def test_it_is_a_cache_that_casts_what_enters(models, name, text):
    model, graph = models[name]
    small = Quantize(None, cache=text)(graph)
    written = {str(node.format) for node in small.nodes if node.op == "cast"}
    format_ = get(written.pop())
    assert not written
    assert format_.element == get(text).element
    wanted = steps(model, casting(lambda _role, _layer, new: format_.cast(new)), PIECES)
    for one, other in zip(steps(small, empty(graph, 3), PIECES), wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_keys_by_channel_and_values_by_token(models, name):
    """As KVQuant (arXiv 2401.18079) does: each channel's scale is calibrated, absmax / 7, layer after layer."""
    model, graph = models[name]
    small = Quantize(None, cache=("int4@[1:1,3:1|whole]", "int4"))(graph, [graph.example])
    scales: dict[int, torch.Tensor] = {}

    def cast(role: str, layer: int, new: torch.Tensor) -> torch.Tensor:
        if role == "values":
            scale = new.abs().amax(-1, keepdim=True).float() / 7
        else:
            scale = scales.setdefault(layer, new.abs().amax((0, 2), keepdim=True).float() / 7)
        return ((new / scale).round().clamp(-8, 7) * scale).to(new.dtype)

    _, kwargs = graph.example
    filled, tensors = (
        casting(cast),
        [tensor for layer in kwargs["past_key_values"].layers for tensor in (layer.keys, layer.values)],
    )
    for layer, (keys, values) in enumerate(zip(tensors[::2], tensors[1::2], strict=True)):
        super(type(filled), filled).update(keys, values, layer)  # what is in the cache already is nobody's to cast
    steps(model, filled, [kwargs["input_ids"]])
    paths = [cache.path for cache in caches(graph)][::2]
    stored = [small.tensors[f"{path}.keys__scale"] for path in paths]
    for layer, scale in enumerate(stored):
        torch.testing.assert_close(scale.double(), scales[layer].double(), atol=0, rtol=1e-6)
    for one, other in zip(steps(small, empty(graph, 3), PIECES), steps(model, casting(cast), PIECES), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("text", ["int8", "uint4@g4", "mxfp4", "nvfp4", "int8@tensor", "int4@channel3"])
def test_a_token_is_rounded_alike_whatever_comes_with_it(models, text):
    _, graph = models["llama"]
    small = Quantize(None, cache=text)(graph, [graph.example])
    ids = torch.cat(PIECES, 1)
    whole = steps(small, empty(graph, 3), [ids])
    single = steps(small, empty(graph, 3), ids.split(1, 1))
    torch.testing.assert_close(whole[0], torch.cat(single[: ids.shape[1]], 1), atol=1e-7, rtol=1e-6)
    for one, other in zip(whole[1:], single[ids.shape[1] :], strict=True):
        torch.testing.assert_close(one, other, atol=1e-7, rtol=1e-6)


def test_the_plan_names_modules_formats_and_bytes(models):
    _, graph = models["llama"]
    plan = [(step.path, step.action) for step in Quantize(None, cache=("int8@tensor", "int4@g4")).plan(graph)]
    assert plan[:2] == [
        ("model.layers.0.self_attn", "keys in the cache to int8@tensor, 128 to 16 bytes a token"),
        ("model.layers.0.self_attn", "values in the cache to int4@g4~dynamic, 128 to 24 bytes a token"),
    ]
    assert [path for path, _ in plan[2:]] == ["model.layers.1.self_attn"] * 2
    only = Quantize(None, cache=(None, "int4")).plan(graph)
    assert [step.action.split()[0] for step in only] == ["values", "values"]


def test_keys_are_told_from_values_however_attention_is_written(models):
    for _, graph in models.values():
        assert [cache.role for cache in caches(graph)] == ["keys", "values"] * 2


class Window(nn.Module):
    """A layer that reads four tokens back, and returns no more; tokens lie on the second axis."""

    def __init__(self) -> None:
        super().__init__()
        self.all = nn.Linear(8, 24)

    def forward(self, x: torch.Tensor, old: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        query, key, value = self.all(x).chunk(3, -1)
        value, key = torch.cat([old["values"], value], 1), torch.concat([old["keys"], key], dim=-2)
        mixed = torch.softmax(query @ key.mT / 8**0.5, -1) @ value
        return mixed, value[:, -4:], key[:, -4:]


def test_a_window_is_a_cache_too():
    torch.manual_seed(0)
    model = Window().double()
    old = {"keys": torch.randn(1, 4, 8).double(), "values": torch.randn(1, 4, 8).double()}
    graph = capture(model, (torch.randn(1, 1, 8).double(), old))
    assert [(cache.role, cache.axis) for cache in caches(graph)] == [("values", 1), ("keys", 1)]
    mixed, values, keys = Quantize(None, cache="int4")(graph)(torch.ones(1, 1, 8).double(), old)
    query, key, value = model.all(torch.ones(1, 1, 8).double()).detach().chunk(3, -1)
    key, value = (get("int4@token").cast(new) for new in (key, value))
    assert torch.equal(values[:, -1:], value)
    assert torch.equal(keys[:, -1:], key)
    key, value = torch.cat([old["keys"], key], 1), torch.cat([old["values"], value], 1)
    torch.testing.assert_close(mixed, nn.functional.scaled_dot_product_attention(query, key, value))


class Dense(nn.Module):
    """Appends to its input, as a DenseNet does, and returns that; nothing attends."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x.relu()], 1)


@pytest.mark.parametrize("make", [mlp, attention, lambda: capture(Dense(), (torch.randn(2, 3),))])
def test_a_graph_without_a_cache_is_refused(make):
    with pytest.raises(OptionError, match="no key-value cache") as caught:
        Quantize(None, cache="int8").plan(make())
    assert "past_key_values" in caught.value.hint


@pytest.mark.parametrize("text", ["int8@channel0", "int8@tensor~dynamic", "int4@g32axis-2", "bm8"])
def test_scales_that_only_some_tokens_share_are_refused(models, text):
    with pytest.raises(OptionError, match="share"):
        Quantize(None, cache=text).plan(models["llama"][1])


def test_what_is_no_format_of_a_cache(models):
    with pytest.raises(UnknownName):
        Quantize(None, cache="in8")
    with pytest.raises(OptionError, match="one format or two"):
        Quantize(None, cache=("int8", "int8", "int8"))
    with pytest.raises(OptionError, match="nothing to quantize"):
        Quantize(None, cache=(None, None))
    _, graph = models["llama"]
    with pytest.raises(OptionError, match="already"):
        Quantize(None, cache="int4").plan(Quantize(None, cache="int8")(graph))
    rest = Quantize(None, cache="int8")(Quantize(None, cache=("int4", None))(graph))
    assert [str(cache.new.format) for cache in caches(rest)] == ["int4@token~dynamic", "int8@token~dynamic"] * 2


@pytest.mark.parametrize("cache", ["mxfp4", ("int8@tensor", "int4@g32"), (None, "int8"), None])
def test_it_is_written_and_read(cache):
    step = Quantize("int4", cache=cache)
    assert config.decode(Quantize, config.encode(step)) == step


def test_with_weights_it_is_the_rounded_model_and_a_cache_that_casts(models):
    _, graph = models["llama"]
    small = Recipe(Prune(0.3), Quantize("int8", cache="e4m3"))(graph)
    rounded = llama().double()
    rounded.load_state_dict(small.base_state_dict())
    wanted = steps(rounded, casting(lambda _role, _layer, new: get("e4m3").cast(new)), PIECES)
    for one, other in zip(steps(small, empty(graph, 3), PIECES), wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize(
    "passes",
    [
        [Quantize(None, cache="int4@g4")],
        [Quantize("int4@g16", "uint8", by="gptq", attention="int8", cache=("fp8@tensor", "int4"))],
        [Quantize(None, cache="int8@tensor"), Rotate(), Prune("50%"), Adapt(2)],
    ],
    ids=["alone", "everything", "first"],
)
def test_it_trains_saves_and_folds(graph, passes, tmp_path):
    small = Recipe(*passes)(graph, [graph.example])
    assert all(cache.new.op == "cast" for cache in caches(small))
    trains(small)
    saves(small, tmp_path)
    folds(small)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_build_generates_what_the_graph_does(engine, graph):
    require(engine)
    small = Quantize(None, cache=("int8@tensor", "int4"))(graph, [graph.example])
    artifact = Cpu(engine=engine, seconds=0.02).build(small)
    assert torch.equal(artifact.generate(tokens(2, 6), 8), generate(small, tokens(2, 6), 8))


def test_a_build_refuses_a_cache_that_no_engine_rounds(graph):
    with pytest.raises(EngineError, match="e4m3"):
        Cpu(seconds=0.02).build(Quantize(None, cache="e4m3")(graph))
