"""Greedy text generation with a key-value cache.

One graph does both halves: prefill is a call with the prompt and an empty cache, decoding a call with one token and the
cache that the call before returned. Only flat tensors move between the calls: a step costs what the engine costs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from planish.errors import DataError, OptionError
from planish.graph import Graph
from planish.record import Measurement
from planish.targets.cpu.artifact import CpuArtifact
from planish.targets.cpu.signature import Signature

_IDS, _MASK, _CACHE, _LOGITS = "input_ids", "attention_mask", "past_key_values", "logits"
_CAPTURE = (
    "capture one step: capture(model, {'input_ids': ids, 'past_key_values': cache}, "
    "dynamic={'input_ids': {0: 'batch', 1: 'tokens'}, 'past_key_values': {0: 'batch', 2: 'past'}})"
)


def generate(
    run: Graph | CpuArtifact, input_ids: Tensor, max_new_tokens: int, eos: int | Sequence[int] | None = None
) -> Tensor:
    """Extend prompts by the likeliest token, again and again.

    Args:
        run: A causal language model that takes `input_ids` and `past_key_values`, captured with the number of tokens
            and the length of the cache variable; it may take `attention_mask` too.
        input_ids: `(batch, tokens)` int64, all prompts of one length, without padding.
        max_new_tokens: Most tokens to add.
        eos: Token, or tokens, that end a text; what follows one in its row is the (first) eos again. None ends none.

    Returns:
        `(batch, tokens + new)` int64: the prompts and what was added. It ends early once every row has ended.

    Raises:
        OptionError: `run` has no cache, or sizes that do not vary; or `max_new_tokens` is below 1.
        DataError: `input_ids` do not fit.
    """
    if max_new_tokens < 1:
        raise OptionError(f"there are 1 or more tokens to add, not {max_new_tokens}", "max_new_tokens")
    model = _Model.of(run)
    model.check(input_ids)
    ends = torch.tensor([eos] if isinstance(eos, int) else list(eos or ()), dtype=torch.int64)
    ended = torch.zeros(len(input_ids), dtype=torch.bool)
    text, tokens, cache = [input_ids], input_ids, model.empty(len(input_ids))
    for _ in range(max_new_tokens):
        tokens, cache = model.step(tokens, cache)
        if len(ends):
            tokens = torch.where(ended[:, None], ends[0], tokens)
            ended |= torch.isin(tokens[:, 0], ends)
        text.append(tokens)
        if bool(ended.all()):
            break
    return torch.cat(text, 1)


def rates(
    run: Graph | CpuArtifact, input_ids: Tensor, new_tokens: int = 32, repeats: int = 5, label: str = ""
) -> list[Measurement]:
    """Tokens per second while a prompt is read, and while text is written.

    Args:
        run: As for `generate`.
        input_ids: `(batch, tokens)` int64.
        new_tokens: Tokens to write after the first, which prefill gives.
        repeats: Times that the whole is done, after once to warm up.
        label: Subject of the rows; by default the artifact's own label, or "eager".

    Returns:
        `prefill_rate` and `decode_rate`: median and quartiles, all rows of the batch counted.

    Raises:
        OptionError: As for `generate`; or nothing is to be timed.
        DataError: As for `generate`.
    """
    if new_tokens < 1 or repeats < 1:
        raise OptionError("a rate needs 1 or more tokens and repeats", "new_tokens, repeats")
    model = _Model.of(run)
    model.check(input_ids)
    batch, prompt = input_ids.shape
    prefill, decode = [], []
    for repeat in range(repeats + 1):
        tokens, cache, seconds = input_ids, model.empty(batch), []
        for _ in range(new_tokens + 1):
            started = time.perf_counter()
            tokens, cache = model.step(tokens, cache)
            seconds.append(time.perf_counter() - started)
        if repeat:
            prefill.append(batch * prompt / seconds[0])
            decode += [batch / second for second in seconds[1:]]
    if isinstance(run, CpuArtifact):
        label, threads = label or run.label, run.options.threads
    else:
        label, threads = label or "eager", torch.get_num_threads()
    details = {"batch": batch, "prompt": prompt, "new_tokens": new_tokens, "threads": threads}
    return [_row("prefill_rate", prefill, label, details), _row("decode_rate", decode, label, details)]


def _row(name: str, values: list[float], label: str, details: dict[str, int]) -> Measurement:
    low, middle, high = (float(value) for value in np.quantile(values, [0.25, 0.5, 0.75]))
    return Measurement(name, middle, "tokens/s", "measured", (low, high), label, details=details)


@dataclass(frozen=True)
class _Model:
    """A causal language model as a function of flat tensors.

    Attributes:
        call: Runs once; tensors in the order of the signature.
        inputs: Name and shape of each tensor it takes.
        kinds: Type of each of them.
        logits: Place of the logits among its results.
        cache: Places of the cache's tensors among its results, in the order of the inputs.
    """

    call: Callable[[list[Tensor]], Sequence[Tensor]]
    inputs: dict[str, tuple[int | str, ...]]
    kinds: dict[str, torch.dtype]
    logits: int
    cache: tuple[int, ...]

    @classmethod
    def of(cls, run: Graph | CpuArtifact) -> _Model:
        signature = Signature.of(run) if isinstance(run, Graph) else run.signature
        kept = [place for place, is_tensor in enumerate(signature.is_tensor) if is_tensor]
        inputs = {signature.inputs[place]: signature.sizes[place] for place in kept}
        held = [name for name in inputs if _is_cache(name)]
        outputs = signature.outputs
        cache = tuple(place for place, name in enumerate(outputs) if _CACHE in name)
        if _IDS not in inputs or not held or len(held) != len(cache) or _LOGITS not in outputs:
            raise OptionError(
                "the model does not generate: it has no cache that goes in and comes out", _CACHE, _CAPTURE
            )
        if unknown := inputs.keys() - {_IDS, _MASK, *held}:
            raise OptionError(
                "generation does not know what to give for an input", ", ".join(sorted(unknown)), _CAPTURE
            )
        rows, tokens = inputs[_IDS]
        pasts = [[size for size in inputs[name] if isinstance(size, str) and size != rows] for name in held]
        if not isinstance(tokens, str) or any(len(names) != 1 for names in pasts):
            wrong = f"{_IDS} ({rows}, {tokens}), {held[0]} ({', '.join(map(str, inputs[held[0]]))})"
            raise OptionError(
                f"its number of tokens, or the length of its cache, does not vary: {wrong}", _CACHE, _CAPTURE
            )
        kinds = {signature.inputs[place]: getattr(torch, signature.types[place]) for place in kept}
        call = _flat(run, signature) if isinstance(run, Graph) else run.compiled
        return cls(call, inputs, kinds, outputs.index(_LOGITS), cache)

    def check(self, input_ids: Tensor) -> None:
        rows = self.inputs[_IDS][0]
        fits = input_ids.dim() == 2 and input_ids.dtype == self.kinds[_IDS] and input_ids.numel() > 0
        if not fits or (isinstance(rows, int) and len(input_ids) != rows):
            kind = str(self.kinds[_IDS]).removeprefix("torch.")
            raise DataError(
                f"{_IDS} is {tuple(input_ids.shape)} {str(input_ids.dtype).removeprefix('torch.')}",
                _IDS,
                f"give it {kind} of shape ({rows}, tokens), with 1 token or more",
            )

    def empty(self, batch: int) -> list[Tensor]:
        """A cache of no tokens."""
        rows = self.inputs[_IDS][0]
        return [
            torch.zeros([size if isinstance(size, int) else batch if size == rows else 0 for size in sizes], dtype=kind)
            for (name, sizes), kind in zip(self.inputs.items(), self.kinds.values(), strict=True)
            if _is_cache(name)
        ]

    def step(self, tokens: Tensor, cache: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The likeliest next token of each row, `(batch, 1)`, and the cache grown by `tokens`."""
        rest, given = iter(cache), []
        for name in self.inputs:
            if _is_cache(name):
                given.append(next(rest))
            elif name == _IDS:
                given.append(tokens)
            else:  # nothing is masked: every token so far, and these
                given.append(torch.ones(len(tokens), self._past(cache) + tokens.shape[1], dtype=self.kinds[_MASK]))
        results = self.call(given)
        return results[self.logits][:, -1:].argmax(-1), [results[place] for place in self.cache]

    def _past(self, cache: list[Tensor]) -> int:
        """Tokens in the cache."""
        name = next(filter(_is_cache, self.inputs))
        rows = self.inputs[_IDS][0]
        axis = next(a for a, size in enumerate(self.inputs[name]) if isinstance(size, str) and size != rows)
        return cache[0].shape[axis]


def _is_cache(name: str) -> bool:
    return name.startswith(_CACHE)


def _flat(graph: Graph, signature: Signature) -> Callable[[list[Tensor]], list[Tensor]]:
    """A graph that takes and returns the flat tensors of its signature."""
    literals = pytree.tree_leaves(graph.example)
    places = [signature.results.index(number) for number in range(len(signature.outputs))]

    def call(tensors: list[Tensor]) -> list[Tensor]:
        given = iter(tensors)
        pairs = zip(signature.is_tensor, literals, strict=True)
        args, kwargs = pytree.tree_unflatten([next(given) if kept else value for kept, value in pairs], graph.in_spec)
        results = pytree.tree_leaves(graph(*args, **kwargs))
        return [results[place] for place in places]

    return call
