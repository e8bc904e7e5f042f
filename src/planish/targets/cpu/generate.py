"""Greedy text generation with a key-value cache, by an artifact of a causal language model.

The model takes `input_ids`, optionally `attention_mask`, `position_ids`, `cache_position`, and the tensors of a cache;
it returns logits and the tensors of the longer cache, in the same order. The prompt runs once against an empty cache
(prefill), then every new token runs alone against the cache so far (decode).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from planish.errors import DataError
from planish.record import Measurement

if TYPE_CHECKING:
    from planish.targets.cpu.artifact import CpuArtifact

_PLAIN: dict[str, Callable[[int, int, int], Tensor]] = {  # batch, tokens in the cache, new tokens
    "attention_mask": lambda batch, past, new: torch.ones(batch, past + new, dtype=torch.int64),
    "position_ids": lambda batch, past, new: torch.arange(past, past + new).expand(batch, new),
    "cache_position": lambda batch, past, new: torch.arange(past, past + new),
}


def generate(artifact: CpuArtifact, input_ids: Tensor, max_new_tokens: int, eos_token_id: int | None = None) -> Tensor:
    """Append the likeliest token, again and again.

    Args:
        artifact: Of a model as above.
        input_ids: The prompts, `(batch, tokens)` int64, all of one length.
        max_new_tokens: How many tokens to append at most.
        eos_token_id: A row that has produced it goes on with it; generation ends when all rows have.

    Returns:
        `(batch, tokens + new tokens)` int64, prompts included.

    Raises:
        DataError: The model has no cache, or the prompt is empty.
    """
    rows, _, _ = _generate(artifact, input_ids, max_new_tokens, eos_token_id)
    return rows


def measure_generation(artifact: CpuArtifact, input_ids: Tensor, max_new_tokens: int = 32) -> list[Measurement]:
    """Tokens per second of prefill and of decode."""
    _generate(artifact, input_ids, 2, None)
    _, prefill, decode = _generate(artifact, input_ids, max_new_tokens, None)
    details = {"batch": input_ids.shape[0], "prompt": input_ids.shape[1], "threads": artifact.options.threads}
    rates = {
        "prefill": input_ids.numel() / prefill,
        "decode": input_ids.shape[0] * len(decode) / max(sum(decode), 1e-9),
    }
    return [
        Measurement(f"{name}_rate", rate, "tokens/s", "measured", subject=artifact.label, details=details)
        for name, rate in rates.items()
    ]


def _generate(
    artifact: CpuArtifact, input_ids: Tensor, max_new_tokens: int, eos_token_id: int | None
) -> tuple[Tensor, float, list[float]]:
    if input_ids.dim() != 2 or input_ids.numel() == 0:
        raise DataError(f"a prompt has shape (batch, tokens), not {tuple(input_ids.shape)}", "input_ids")
    cache = _empty_cache(artifact, len(input_ids))
    rows, new, ended = input_ids, input_ids, torch.zeros(len(input_ids), dtype=torch.bool)
    times: list[float] = []
    for _ in range(max_new_tokens):
        start = time.perf_counter()
        logits, cache = _step(artifact, new, rows.shape[1] - new.shape[1], cache)
        new = logits[:, -1].argmax(-1, keepdim=True)
        times.append(time.perf_counter() - start)
        if eos_token_id is not None:
            new = torch.where(ended[:, None], eos_token_id, new)
            ended |= new[:, 0] == eos_token_id
        rows = torch.cat([rows, new], dim=1)
        if bool(ended.all()):
            break
    return rows, times[0] if times else 0.0, times[1:]


def _cache_inputs(artifact: CpuArtifact) -> list[str]:
    return [name for name in artifact.signature.tensor_inputs if name != "input_ids" and name not in _PLAIN]


def _empty_cache(artifact: CpuArtifact, batch: int) -> list[Tensor]:
    """A cache without tokens: its batch axis is the first one that varies, its token axis the second."""
    signature, empty = artifact.signature, []
    sizes = dict(zip(signature.inputs, zip(signature.sizes, signature.types, strict=True), strict=True))
    names = _cache_inputs(artifact)
    if "input_ids" not in sizes or not names or len(signature.outputs) != 1 + len(names):
        raise DataError(
            "generation needs a causal language model captured with its key-value cache",
            f"inputs {', '.join(signature.inputs)}; outputs {', '.join(signature.outputs)}",
            'capture(model, {"input_ids": ids, "past_key_values": cache, "use_cache": True}, dynamic=...)',
        )
    for name in names:
        shape, kind = sizes[name]
        own = sizes["input_ids"][0][0]
        empty.append(
            torch.zeros(
                [batch if n == own else 0 if isinstance(n, str) else n for n in shape], dtype=getattr(torch, kind)
            )
        )
    return empty


def _step(artifact: CpuArtifact, new: Tensor, past: int, cache: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    held = iter(cache)
    fed = [
        new if name == "input_ids" else _PLAIN[name](len(new), past, new.shape[1]) if name in _PLAIN else next(held)
        for name in artifact.signature.tensor_inputs
    ]
    logits, *longer = artifact.compiled(fed)
    return logits, longer
