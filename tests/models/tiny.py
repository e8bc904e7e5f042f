"""Small random models on disk, for tests that need a transformers directory."""

from __future__ import annotations

from pathlib import Path

import torch
from tests.support import require


def save_llama(folder: Path, layers: int = 2) -> Path:
    """A random Llama of some 50,000 parameters, as `save_pretrained` writes it."""
    transformers = require("transformers")
    config = transformers.LlamaConfig(
        vocab_size=256,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder
