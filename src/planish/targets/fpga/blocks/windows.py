"""Windows over a stream: the parameters of rtl/window.sv, and how its buffer fills and empties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

AXES = 3


@dataclass(frozen=True)
class Windows:
    """Windows over one to three axes of space.

    Attributes:
        sizes: Of the input.
        counts: Windows along each axis.
        kernel: Places of a window.
        stride: From window to window.
        padding: Before and after the input.
        dilation: From place to place.
        groups: Groups of channels.
        beats: Of a group's channels, at one place.
    """

    sizes: tuple[int, ...]
    counts: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1
    beats: int = 1

    @property
    def taps(self) -> int:
        """Places of a window."""
        return prod(self.kernel)

    @property
    def line(self) -> int:
        """Beats of a slice of the first axis."""
        return prod(self.sizes[1:]) * self.groups * self.beats

    @property
    def row(self) -> int:
        """Beats of a row of windows."""
        return prod(self.counts[1:]) * self.groups * self.taps * self.beats

    @property
    def lines(self) -> int:
        """Slices to keep: those of a row and of a stride, or those of the last row and of the next sample's first."""
        span = (self.kernel[0] - 1) * self.dilation[0] + 1
        return max(span + self.stride[0], self._needed(self.counts[0] - 1) + self._needed(0))

    @property
    def latency(self) -> int:
        """Cycles from the first beat in to the first one out."""
        return self._needed(0) * self.line + 2

    def interval(self, turns: int = 1) -> int:
        """Cycles from sample to sample, if whoever reads takes `turns` cycles a beat."""
        row_time, lines, counts = self.row * turns, self.lines, self.counts[0]
        written: list[int] = []  # when each slice is there
        freed: list[int] = []  # when each slice's place is free
        ends: list[int] = []
        clock = 0
        for _ in range(_SAMPLES):
            first = len(freed)
            for row in range(counts):
                while len(written) < len(freed) + self._needed(row):
                    index = len(written)
                    start = max(written[-1] if written else 0, freed[index - lines] if index >= lines else 0)
                    written.append(start + self.line)
                known = len(freed) + self._needed(row)
                clock = max(clock, written[known - 1] if known else 0) + row_time
                freed += [clock] * (self._first(row + 1) - (len(freed) - first))
            ends.append(clock)
        return ends[-1] - ends[-2]

    def parameters(self) -> dict[str, int]:
        """Of rtl/window.sv, but for its width and fill."""
        found: dict[str, int] = {}
        listed: dict[str, Sequence[int]] = {
            "SIZE": self.sizes,
            "KERNEL": self.kernel,
            "STRIDE": self.stride,
            "DILATION": self.dilation,
            "BEFORE": [before for before, _ in self.padding],
            "COUNT": self.counts,
        }
        for name, values in listed.items():
            for axis in range(AXES):
                found[f"{name}_{axis}"] = values[axis] if axis < len(values) else int(name != "BEFORE")
        return found | {"GROUPS": self.groups, "LINES": self.lines}

    def _first(self, row: int) -> int:
        """The first slice that this row of windows or a later one looks at."""
        if row in (0, self.counts[0]):
            return 0 if row == 0 else self.sizes[0]
        return self._inside(row * self.stride[0] - self.padding[0][0])

    def _needed(self, row: int) -> int:
        """Slices from the first one on that must be there for a row of windows; at least those that end with it."""
        past = row * self.stride[0] - self.padding[0][0] + (self.kernel[0] - 1) * self.dilation[0] + 1
        return max(self._inside(past), self._first(row + 1)) - self._first(row)

    def _inside(self, line: int) -> int:
        return min(max(line, 0), self.sizes[0])


_SAMPLES = 4  # until one sample is like the next
