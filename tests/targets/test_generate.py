from __future__ import annotations

import pytest
import torch

from planish.frontends import capture
from planish.targets.cpu import Cpu
from tests.support import require


@pytest.fixture(scope="module")
def llama():
    transformers = require("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def graph(llama):
    from transformers import DynamicCache

    prompt = torch.randint(0, 64, (2, 3))
    cache = llama(prompt, use_cache=True, past_key_values=DynamicCache()).past_key_values
    example = {
        "input_ids": torch.randint(0, 64, (2, 2)),
        "attention_mask": torch.ones(2, 5, dtype=torch.int64),
        "past_key_values": cache,
        "use_cache": True,
    }
    dynamic = {
        "input_ids": {0: "batch", 1: "new"},
        "attention_mask": {0: "batch", 1: "total"},
        "past_key_values": {0: "batch", 2: "past"},
    }
    return capture(llama, example, dynamic, training=False)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_it_generates_what_transformers_does(engine, llama, graph):
    require(engine)
    artifact = Cpu(engine=engine, seconds=0.02).build(graph)
    prompt = torch.randint(0, 64, (2, 6))
    wanted = llama.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=8,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert torch.equal(artifact.generate(prompt, 8), wanted)
