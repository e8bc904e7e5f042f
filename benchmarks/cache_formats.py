"""Claim: an 8-bit key-value cache costs a language model nothing, one of 4 bits some hundredths of a bit a character.

    python -m benchmarks.cache_formats        # about four minutes

A Llama of 468,000 parameters is trained on characters of real sentences, and judged on 256 pieces of others. The result
goes to benchmarks/results/cache_formats.json.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from planish.compress import Quantize
from planish.compress.cache import caches
from planish.frontends import capture
from planish.graph import Graph
from planish.models import sentences
from planish.record import environment

RESULT = Path(__file__).parent / "results" / "cache_formats.json"
LENGTH = 128
CACHES = [
    "int8",
    "int8@tensor",
    "fp8",
    "mxfp4",
    "nvfp4",
    "nf4",
    "int4",
    ("int4@[1:1,3:1|whole]", "int4"),
    "int3",
    "int2",
]


def texts(name: sentences.Split) -> Tensor:
    """Characters of a split as `(rows, LENGTH)` numbers from 0 (a space, or what is not ASCII) to 94."""
    text = "\n".join(row.text for row in sentences.split(name))
    codes = torch.tensor([code - 32 if 32 <= (code := ord(char)) < 127 else 0 for char in text])
    return codes[: len(codes) // LENGTH * LENGTH].view(-1, LENGTH)


def trained(rows: Tensor) -> nn.Module:
    """A model of the next character."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 95, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(**sizes, **heads))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    steps = 1000
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    order = torch.randperm(len(rows))
    for step in range(steps):
        batch = rows[order[torch.arange(step * 16, step * 16 + 16) % len(rows)]]
        loss = nn.functional.cross_entropy(model(batch).logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def captured(model: nn.Module) -> Graph:
    """Its graph, with a cache among the arguments."""
    ids = torch.zeros(2, 3, dtype=torch.int64)
    with torch.no_grad():
        cache = model(ids, use_cache=True, past_key_values=DynamicCache()).past_key_values
    dynamic = {"input_ids": {0: "batch", 1: "new"}, "past_key_values": {0: "batch", 2: "past"}}
    return capture(model, {"input_ids": ids, "past_key_values": cache, "use_cache": True}, dynamic, training=False)


def call(graph: Graph, ids: Tensor) -> tuple[tuple, dict]:
    """Arguments for tokens that nothing stands before."""
    cache = DynamicCache()
    for layer in range(len(caches(graph)) // 2):
        _, heads, _, features = caches(graph)[0].new.shape
        cache.update(*(torch.empty(len(ids), heads, 0, features) for _ in range(2)), layer)
    return (), {"input_ids": ids, "past_key_values": cache, "use_cache": True}


def bits(graph: Graph, rows: Tensor) -> float:
    """Bits per character."""
    total = 0.0
    for batch in rows.split(32):
        logits = graph(**call(graph, batch)[1]).logits[:, :-1].flatten(0, 1)
        total += float(nn.functional.cross_entropy(logits, batch[:, 1:].flatten(), reduction="sum"))
    return total / (rows.shape[0] * (LENGTH - 1)) / torch.tensor(2.0).log().item()


def main() -> None:
    """Train, quantize, judge, write the result, print it."""
    graph = captured(trained(texts("training")))
    judged, calibration = texts("evaluation")[:256], [call(graph, texts("calibration")[:32])]
    exact = bits(graph, judged)
    rows = [row("none", graph, exact, exact)]
    for cache in CACHES:
        small = Quantize(None, cache=cache)(graph, calibration)
        rows.append(row(" and ".join(cache) if isinstance(cache, tuple) else cache, small, bits(small, judged), exact))
    facts = environment(seed=0, command="python -m benchmarks.cache_formats")
    RESULT.write_text(json.dumps({"environment": facts, "rows": rows}, indent=1) + "\n", encoding="utf-8")


def row(name: str, graph: Graph, found: float, exact: float) -> dict[str, object]:
    """A row of the result, printed."""
    held = sum(one.token_bytes(one.new.format) for one in caches(graph)[:2])
    print(
        f"{name:32} {found:.4f} bits a character ({found - exact:+.4f}), {held:g} bytes a token and layer", flush=True
    )
    return {"cache": name, "bits a character": found, "lost": found - exact, "bytes a token and layer": held}


if __name__ == "__main__":
    main()
