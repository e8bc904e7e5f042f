"""How good a model's answers are: named metrics, each a function `(callable, data) -> Measurement`.

`data` is any re-iterable of `(args, kwargs, target)`. A metric reads one tensor of what the callable returns: the
tensor itself, `logits` of a mapping or a transformers output that has one, and otherwise the first tensor found, in
order. The first axis of that tensor is the batch; what is counted, resampled and reported as `details["count"]` is its
rows.

`spread` is always a 95 % confidence interval: Wilson's for a share, Fisher's for a correlation, and the percentile
bootstrap over rows (1,000 resamples, fixed seed) for everything else.

Metrics in `FIDELITY` ask how far a changed model is from the original: their target is the original's own output, which
`with_reference(original, data)` supplies. The others compare with the truth that the data carries.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from planish.errors import DataError, EngineError
from planish.record import Measurement
from planish.registry import Registry

Model = Callable[..., Any]
Data = Iterable[tuple[Any, ...]]


class Metric(Protocol):
    """A judge of a model: runs it over the data and returns one number with its spread."""

    def __call__(self, model: Model, data: Data) -> Measurement:
        """Run the model on the data without gradients and measure."""
        ...


FIDELITY = frozenset({"mean_cosine", "sqnr"})

metrics = Registry(
    "metric",
    {
        "accuracy": "planish.metrics:accuracy",
        "mean_cosine": "planish.metrics:mean_cosine",
        "mse": "planish.metrics:mse",
        "pearson": "planish.metrics:pearson",
        "perplexity": "planish.metrics:perplexity",
        "sqnr": "planish.metrics:sqnr",
    },
)


def get(metric: str | Metric) -> Metric:
    """A metric by name; a callable is returned as it is.

    Raises:
        UnknownName: No metric of that name is registered.
    """
    return metrics[metric] if isinstance(metric, str) else metric


def accuracy(model: Model, data: Data) -> Measurement:
    """Share of right answers: scores `(batch, classes, ...)`, target the class numbers `(batch, ...)`."""
    right = count = 0
    for scores, target in _pairs(model, data, "accuracy"):
        guess = scores.argmax(1)
        if guess.shape != target.shape:
            raise DataError(
                f"accuracy got targets of shape {tuple(target.shape)} for scores of shape {tuple(scores.shape)}",
                hint="targets are class numbers, one for each answer",
            )
        right, count = right + int((guess == target).sum()), count + target.numel()
    return share("accuracy", right, count)


def mean_cosine(model: Model, data: Data) -> Measurement:
    """Mean over rows of the cosine between output and target, each row flattened; a fidelity metric."""
    cosines = [
        torch.nn.functional.cosine_similarity(output, target, dim=1).clamp(-1, 1).numpy()
        for output, target in _rows(model, data, "mean_cosine")
    ]
    return _bootstrapped("mean_cosine", "1", [np.concatenate(cosines)], np.mean)


def sqnr(model: Model, data: Data) -> Measurement:
    """Signal to quantization noise ratio in dB: the target's energy over that of the difference; a fidelity metric.

    Differences below float32's own rounding (2⁻²⁴ of the signal) are counted as that, so that the most is 144.5 dB.
    """
    energies = [
        (target.square().sum(1).numpy(), (output - target).square().sum(1).numpy())
        for output, target in _rows(model, data, "sqnr")
    ]
    signal, noise = (np.concatenate(part) for part in zip(*energies, strict=True))
    return _bootstrapped("sqnr", "dB", [signal, noise], _decibels)


def _decibels(signal: np.ndarray, noise: np.ndarray) -> float:
    floor = 2.0**-48 * signal.sum()
    return 10 * math.log10(signal.sum() / max(noise.sum(), floor)) if floor > 0 else 0.0


def mse(model: Model, data: Data) -> Measurement:
    """Mean squared difference of output and target, over every element."""
    squares = [(output - target).square().mean(1).numpy() for output, target in _rows(model, data, "mse")]
    return _bootstrapped("mse", "1", [np.concatenate(squares)], np.mean)


def pearson(model: Model, data: Data) -> Measurement:
    """Pearson's correlation of all output elements with all target elements."""
    outputs, targets = zip(*_rows(model, data, "pearson"), strict=True)
    flat = [torch.cat([part.flatten() for part in side]).numpy() for side in (outputs, targets)]
    return correlation("pearson", *flat)


def perplexity(model: Model, data: Data) -> Measurement:
    """Exponential of the mean negative log-likelihood per token, for a language model.

    Logits `(batch, sequence, vocabulary)`; target `(batch, sequence)`, at each place the token that follows it, and
    -100 where nothing is to be predicted. The interval resamples rows.
    """
    losses, tokens = [], []
    for logits, target in _pairs(model, data, "perplexity"):
        loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2).float(), target.long(), reduction="none")
        losses.append(loss.double().sum(1).numpy())
        tokens.append((target != -100).sum(1).numpy())
    parts = [np.concatenate(losses), np.concatenate(tokens)]
    return _bootstrapped("perplexity", "1", parts, lambda loss, count: math.exp(loss.sum() / max(count.sum(), 1)))


def correlation(name: str, x: np.ndarray, y: np.ndarray) -> Measurement:
    """Pearson's r of two vectors, with Fisher's 95 % interval.

    Raises:
        DataError: Fewer than four values, or one side is constant.
    """
    if len(x) < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        raise DataError(f"{name} needs at least 4 values that are not all equal")
    r = float(np.corrcoef(x, y)[0, 1])
    z, reach = math.atanh(max(min(r, 1 - 1e-12), 1e-12 - 1)), 1.959964 / math.sqrt(len(x) - 3)
    spread = (math.tanh(z - reach), math.tanh(z + reach))
    return Measurement(name, r, "1", "measured", spread, details={"count": len(x)})


def share(name: str, right: int, count: int) -> Measurement:
    """A share with Wilson's 95 % interval."""
    z, p = 1.959964, right / count
    center, reach = p + z * z / (2 * count), z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    spread = (max(0.0, (center - reach) / scale), min(1.0, (center + reach) / scale))
    return Measurement(name, p, "1", "measured", spread, details={"count": count})


def _bootstrapped(name: str, unit: str, parts: list[np.ndarray], statistic: Callable[..., Any]) -> Measurement:
    """`statistic(*parts)` and its 95 % percentile bootstrap over the parts' common rows."""
    count = len(parts[0])
    draws = np.random.default_rng(0).integers(count, size=(1000, count), dtype=np.int32)
    low, high = np.percentile([statistic(*(part[rows] for part in parts)) for rows in draws], [2.5, 97.5])
    value = float(statistic(*parts))
    return Measurement(name, value, unit, "measured", (float(low), float(high)), details={"count": count})


class WithReference:
    """Data whose target is what `model` answers; computed on the first pass and kept in memory.

    Yields `(args, kwargs, output)`.
    """

    def __init__(self, model: Model, data: Data) -> None:
        self._model, self._data = model, data
        self._outputs: list[Tensor] | None = None
        self.description = getattr(data, "description", "")

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for item, output in zip(self._data, self._kept(), strict=True):
            yield item[0], item[1], output

    def recall(self) -> Model:
        """The model's stand-in for one pass over the data: it answers from memory, in order, and looks at no input."""
        outputs = iter(self._kept())
        return lambda *args, **kwargs: next(outputs)

    def _kept(self) -> list[Tensor]:
        if self._outputs is None:
            with torch.no_grad():
                self._outputs = [read_tensor(self._model(*item[0], **item[1])).detach() for item in self._data]
        return self._outputs


def with_reference(model: Model, data: Data) -> WithReference:
    """The same inputs, with the model's own outputs as targets: what fidelity metrics compare with."""
    return WithReference(model, data)


def read_tensor(output: Any) -> Tensor:
    """The one tensor of an output that metrics look at (see the module's text).

    Raises:
        DataError: There is no tensor in it.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        chosen = [output["logits"]] if "logits" in output else list(output.values())
    else:
        chosen = list(output) if isinstance(output, (tuple, list)) else []
    for part in chosen:
        if isinstance(part, (Tensor, Mapping, tuple, list)) and part is not output:
            return read_tensor(part)
    raise DataError(f"a metric reads a tensor, and the model returned {type(output).__name__}")


def _pairs(model: Model, data: Data, metric: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Output and target of each item, on the CPU; the model runs without gradients."""
    empty = True
    for item in data:
        empty = False
        if len(item) < 3 or item[2] is None:
            hint = (
                "planish.metrics.with_reference(original, data)"
                if metric in FIDELITY
                else "yield (args, kwargs, target)"
            )
            raise DataError(f"{metric} compares answers with a target, and the data has none", hint=hint)
        with torch.no_grad():
            output = read_tensor(model(*item[0], **item[1])).detach().cpu()
        if output.is_floating_point() and output.isnan().any():
            raise EngineError(f"{metric} cannot be measured: the model's output holds NaN")
        yield output, read_tensor(item[2]).detach().cpu()
    if empty:
        raise DataError(f"{metric} was given no data", hint="yield at least one (args, kwargs, target)")


def _rows(model: Model, data: Data, metric: str) -> Iterator[tuple[Tensor, Tensor]]:
    """The pairs as float64 matrices `(batch, elements)`."""
    for output, target in _pairs(model, data, metric):
        if output.numel() != target.numel() or output.ndim == 0:
            raise DataError(
                f"{metric} got an output of shape {tuple(output.shape)} and a target of shape {tuple(target.shape)}"
            )
        yield output.double().reshape(len(output), -1), target.double().reshape(len(output), -1)
