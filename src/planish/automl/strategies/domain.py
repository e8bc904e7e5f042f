"""Decisions as columns of numbers: what the strategies of our own compute with.

A point is an array `(decisions,)` of codes: the place of an option, or of a value on its grid; of a decision without a
grid, where it stands between its lowest and highest value, from 0 to 1. NaN is a decision that a trial did not ask for.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from planish.errors import OptionError

Points: TypeAlias = NDArray[np.float64]
MIXERS = np.random.default_rng(0).integers(0, 1 << 63, 4096, np.uint64) * 2 + 1  # odd, for `keys`
STEPS = (0.02, 0.1, 0.3)  # of a range: how far a number moves to a neighbor
FEW = 12  # numbers with at most so many values have all of them as neighbors
ROWS = 1 << 16  # of points that are held at once where all are enumerated


def keys(points: Points) -> NDArray[np.uint64]:
    """A number for each row of `(rows, decisions)` that is the same for the same row, and hardly ever for another."""
    bits = (points + 0.0).view(np.uint64)
    mixed = (bits ^ (bits >> np.uint64(32))) * MIXERS[np.arange(bits.shape[1]) % len(MIXERS)]
    return ((mixed ^ (mixed >> np.uint64(29))) * MIXERS[0]).sum(1)


def distinct(points: Points) -> Points:
    """The rows of `(rows, decisions)`, each once, in the order of their first."""
    return points[np.sort(np.unique(keys(points), return_index=True)[1])]


@dataclass(frozen=True)
class Axis:
    """One decision.

    Attributes:
        name: Of the decision.
        distribution: Its values.
    """

    name: str
    distribution: BaseDistribution

    @cached_property
    def count(self) -> int:
        """How many values it has; 0 if they are not countable."""
        match self.distribution:
            case CategoricalDistribution(choices=choices):
                return len(choices)
            case IntDistribution(low=low, high=high, step=step):
                return (high - low) // step + 1
            case FloatDistribution(low=low, high=high, step=step) if step is not None or low == high:
                return round((high - low) / (step or 1.0)) + 1
            case FloatDistribution():
                return 0
        raise OptionError(f"no strategy knows a {type(self.distribution).__name__}", self.name)

    @cached_property
    def is_number(self) -> bool:
        """Whether its values have distances."""
        return not isinstance(self.distribution, CategoricalDistribution)

    def code(self, value: Any) -> float:
        """The code of a value; a number out of range has that of the nearest one."""
        match self.distribution:
            case CategoricalDistribution():
                return self.distribution.to_internal_repr(value)
            case IntDistribution(low=low, step=step) | FloatDistribution(low=low, step=float(step)):
                return float(np.clip(round((value - low) / step), 0, self.count - 1))
            case FloatDistribution(low=low, high=high, log=log) if low < high:
                part = math.log(max(value, low) / low) / math.log(high / low) if log else (value - low) / (high - low)
                return float(np.clip(part, 0, 1))
        return 0.0

    def value(self, code: float) -> Any:
        """The value of a code."""
        match self.distribution:
            case CategoricalDistribution(choices=choices):
                return choices[int(code)]
            case IntDistribution(low=low, step=step):
                return int(low + int(code) * step)
            case FloatDistribution(low=low, high=high, step=float(step)):
                return float(min(low + code * step, high))
            case FloatDistribution(low=low, high=high, log=True):
                return float(np.clip(math.exp(math.log(low) + code * math.log(high / low)), low, high))
            case FloatDistribution(low=low, high=high):
                return float(np.clip(low + code * (high - low), low, high))
        raise AssertionError(self.distribution)

    @cached_property
    def places(self) -> Points:
        """Of every value, `(count,)`, where it stands between the lowest and the highest: from 0 to 1, in logarithms if
        it was so declared."""
        places = np.arange(self.count) / max(1, self.count - 1)
        if isinstance(self.distribution, IntDistribution) and self.distribution.log and self.count > 1:
            low, high = self.distribution.low, self.distribution.high
            places = np.log(np.arange(low, high + 1) / low) / math.log(high / low)
        return places

    def stands(self, codes: Points) -> Points:
        """Where codes stand between the lowest and the highest value, from 0 to 1; NaN stays."""
        if not self.count:
            return codes
        return np.where(np.isnan(codes), math.nan, self.places[np.nan_to_num(codes).astype(int)])

    def draw(self, rng: np.random.Generator, size: int) -> Points:
        """Codes drawn evenly, or evenly in logarithms, `(size,)`."""
        return self.at(rng.random(size))

    def at(self, part: Any) -> Any:
        """The code where such a part, from 0 up to 1, of all values lies below; parts and codes broadcast."""
        if not self.count:
            return part
        if isinstance(self.distribution, IntDistribution) and self.distribution.log:
            middles = (self.places[1:] + self.places[:-1]) / 2
            return np.searchsorted(middles, part).astype(float)
        return np.floor(np.multiply(part, self.count))

    @cached_property
    def _rest(self) -> Points:
        return np.stack([np.delete(np.arange(self.count, dtype=float), code) for code in range(self.count)])

    def others(self, code: float) -> Points:
        """The codes next to one: all other options of a category, steps of several sizes on a number."""
        if self.count and (not self.is_number or self.count <= FEW):
            return self._rest[int(code)]
        span = max(1, self.count - 1)
        moves = np.array([sign * step for step in STEPS for sign in (-1, 1)]) * span
        if self.count:
            moves = np.r_[-1, 1, np.round(moves)]
        codes = np.unique(np.clip(code + moves, 0, span))
        return codes[codes != code]


@dataclass(frozen=True)
class Domain:
    """All decisions of a search.

    Attributes:
        axes: One a decision.
    """

    axes: tuple[Axis, ...]

    @classmethod
    def of(cls, space: Mapping[str, BaseDistribution]) -> Domain:
        """The domain of a space as Optuna spells it."""
        return cls(tuple(Axis(name, distribution) for name, distribution in space.items()))

    def __len__(self) -> int:
        return len(self.axes)

    @cached_property
    def size(self) -> int:
        """How many points there are (a decision that conditions may switch off counts as one); 0 if not countable."""
        return math.prod(axis.count for axis in self.axes)

    def encode(self, params: Mapping[str, Any]) -> Points:
        """The codes of a point, NaN for decisions that it lacks."""
        return np.array([axis.code(params[axis.name]) if axis.name in params else math.nan for axis in self.axes])

    def decode(self, point: Points) -> dict[str, Any]:
        """The values of a point, without decisions that are NaN."""
        pairs = zip(self.axes, point.tolist(), strict=True)
        return {axis.name: axis.value(code) for axis, code in pairs if not math.isnan(code)}

    def draw(self, rng: np.random.Generator, size: int) -> Points:
        """Points drawn evenly, `(size, decisions)`."""
        return np.stack([axis.draw(rng, size) for axis in self.axes], 1)

    def spread(self, rng: np.random.Generator) -> Points:
        """Points in which every decision takes each of its options, in an order of its own: a Latin hypercube.

        As many as the largest number of options, of which `FEW` count; numbers without a grid are stratified.
        """
        rows = min(FEW, max(axis.count or FEW for axis in self.axes))
        columns = []
        for axis in self.axes:
            strata = rng.permutation(rows)
            if not axis.count:
                columns.append((strata + rng.random(rows)) / rows)
            elif axis.count >= rows:
                columns.append(np.floor((strata + rng.random(rows)) / rows * axis.count))
            else:
                columns.append(np.resize(rng.permutation(axis.count), rows)[strata].astype(float))
        return np.stack(columns, 1)

    @cached_property
    def uniform(self) -> Points:
        """Points with the same choice everywhere, `(options, decisions)`.

        Decisions with equal domains move together; those of different domains by their relative rank. There are none
        where no two decisions share a domain.
        """
        sizes = Counter(axis.distribution for axis in self.axes if axis.count > 1)
        rows = max((axis.count for axis in self.axes if sizes[axis.distribution] > 1), default=0)
        part = np.linspace(0, 1, min(FEW, rows))[:, None]
        span = np.array([axis.count - 1 if axis.count else 0.0 for axis in self.axes])
        even = np.array([axis.count > 0 for axis in self.axes])
        return np.where(even, np.round(part * span), part)

    def design(self, seed: int, starts: int, uniform: bool) -> Points:
        """The first points of a search, `(points, decisions)`: the uniform ones if wanted, then a Latin hypercube.

        Args:
            seed: Of the hypercube.
            starts: How many of its points at most.
            uniform: Whether the uniform ones come first.
        """
        spread = self.spread(np.random.default_rng(seed))[:starts]
        return np.r_[self.uniform, spread] if uniform else spread

    def neighbors(self, point: Points) -> Points:
        """All points that differ in one decision, `(neighbors, decisions)`; those that are NaN stay."""
        pairs = zip(self.axes, point.tolist(), strict=True)
        moves = [np.empty(0) if math.isnan(code) else axis.others(code) for axis, code in pairs]
        places = np.repeat(np.arange(len(self)), [len(move) for move in moves])
        found = np.repeat(point[None], len(places), 0)
        found[np.arange(len(places)), places] = np.concatenate(moves)
        return found

    def at(self, numbers: NDArray[np.int_]) -> Points:
        """Points of a countable domain by their numbers, `(rows,)`, the last decision fastest."""
        point = np.empty((len(numbers), len(self)))
        for place in range(len(self) - 1, -1, -1):
            numbers, point[:, place] = np.divmod(numbers, self.axes[place].count)
        return point

    def every(self) -> Iterator[Points]:
        """All points of a countable domain, in parts of at most `ROWS`."""
        for start in range(0, self.size, ROWS):
            yield self.at(np.arange(start, min(start + ROWS, self.size)))
