"""Did it work? One sentence with three numbers, each before → after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from planish.report.numbers import quantity, words
from planish.report.rows import Row, Rows

Tone = Literal["better", "same", "worse", "missing"]
STYLES: dict[Tone, str] = {"better": "bold cyan", "same": "", "worse": "bold yellow", "missing": "dim"}
"""How each looks on a terminal."""
_FIDELITY = ("mean_cosine", "sqnr")  # of the model to its own original: a distance, which is neither good nor bad
_RIVALS = {"baseline": "the best fp32 engine", "eager": "eager PyTorch"}


@dataclass(frozen=True)
class Change:
    """One of the three numbers.

    Attributes:
        label: What it is ("size", "latency", the metric's name).
        phrase: Its part of the sentence ("3.94× smaller").
        tone: Whether that is good news.
        before: The number of the original (latency: of the best fp32 engine); None where there is none.
        after: The number of the artifact that was kept.
        ratio: The paired ratio behind a latency.
        than: What a latency is compared with.
    """

    label: str
    phrase: str
    tone: Tone
    before: Row | None = None
    after: Row | None = None
    ratio: Row | None = None
    than: str = _RIVALS["baseline"]


@dataclass(frozen=True)
class Verdict:
    """The sentence and what it rests on."""

    model: str
    size: Change
    latency: Change
    quality: Change
    device: str = ""
    """An FPGA that the model was built for: it has cells instead of a size, and no engine that it is faster than."""

    @property
    def changes(self) -> tuple[Change, Change, Change]:
        """Size, latency, quality: the order in which they are read."""
        return self.size, self.latency, self.quality

    @property
    def parts(self) -> list[tuple[str, Tone | None]]:
        """The sentence in pieces, each with the tone it is colored by."""
        known = [c for c in (self.size, self.latency) if c.tone != "missing"]
        if self.device:
            said = " and ".join(change.phrase for change in known)
            quality = f"; {self.quality.phrase}" if self.quality.tone != "missing" else ""
            return [
                (f"{self.model} {said or 'is built'} on {self.device}", None),
                (quality, self.quality.tone),
                (".", None),
            ]
        if not known:
            start = f" starts at {self.size.before.text}" if self.size.before else ""
            return [(f"{self.model}{start}{';' if start else ':'} nothing to compare yet.", None)]
        parts: list[tuple[str, Tone | None]] = [(self.model, None), (" is ", None)]
        for i, change in enumerate(known):
            parts += [(" and ", None)] * (i > 0) + [(change.phrase, change.tone)]
        if self.latency.tone not in ("missing", "same"):
            parts.append((f" than {self.latency.than}", None))
        if self.quality.tone != "missing":
            parts += [("; ", None), (self.quality.phrase, self.quality.tone)]
        return [*parts, (".", None)]

    @property
    def sentence(self) -> str:
        """The verdict as plain text."""
        return "".join(text for text, _ in self.parts)


def judge(rows: Rows, fallback_name: str) -> Verdict:
    """The verdict of a run; what was not measured is said to be missing, never guessed."""
    model = rows.one("model")
    name = model.m.subject if model and model.m.subject else fallback_name
    interval = rows.one("interval")
    if interval:
        return Verdict(name, _cells(rows), _answer(rows), _quality(rows), interval.detail("device"))
    return Verdict(name, _size(rows), _latency(rows), _quality(rows))


def _cells(rows: Rows) -> Change:
    used = rows.one("lut")
    if not used:
        return Change("cells", "cells not counted", "missing")
    return Change("cells", f"takes {used.text}", "same", None, used)


def _answer(rows: Rows) -> Change:
    after = rows.one("latency", "chosen")
    if not after:
        return Change("latency", "latency not simulated", "missing")
    return Change("latency", f"answers in {after.text}", "same", None, after)


def _size(rows: Rows) -> Change:
    before, after = rows.one("size", "original"), rows.one("size", "chosen")
    if not before or not after or not after.m.value:
        return Change("size", "size not measured", "missing", before, after)
    ratio = before.m.value / after.m.value
    return Change("size", *_compare(ratio, "smaller", "larger", "equally large"), before, after)


def _latency(rows: Rows) -> Change:
    """Against the best fp32 engine; where none was raced (a model built as it is), against eager PyTorch."""
    after = rows.one("latency", role="chosen")
    role = next((role for role in _RIVALS if rows.one("speedup", role=role)), "baseline")
    before, ratio, than = rows.one("latency", role=role), rows.one("speedup", role=role), _RIVALS[role]
    if not after or not ratio:
        return Change("latency", "latency not compared", "missing", before, after, than=than)
    low, high = ratio.m.spread or (ratio.m.value, ratio.m.value)
    said: tuple[str, Tone] = _compare(ratio.m.value, "faster", "slower", "equally fast")
    if low < 1 < high:
        said = f"as fast as {than}", "same"
    return Change("latency", *said, before, after, ratio, than)


def _quality(rows: Rows) -> Change:
    after = next((row for row in rows if row.m.subject == "chosen" and row.m.details.get("headline")), None)
    if not after:
        return Change("quality", "quality not measured", "missing")
    label = words(after.m.name)
    before = rows.one(after.m.name, "original") or rows.one(after.m.name, "baseline")
    if not before or after.m.name in _FIDELITY:
        return Change(label, f"{label.lower()} to the original {after.text}", "same", before, after)
    return Change(label, f"{label.lower()} {before.text} → {after.text}", tone_of(before, after), before, after)


def tone_of(before: Row, after: Row) -> Tone:
    """Whether a metric rose or fell by more than its interval."""
    low, high = after.m.spread or (after.m.value, after.m.value)
    return "same" if low <= before.m.value <= high else "better" if after.m.value > before.m.value else "worse"


def _compare(ratio: float, more: str, less: str, equal: str) -> tuple[str, Tone]:
    if ratio == 1:
        return equal, "same"
    return (
        (f"{quantity(ratio, 'x')} {more}", "better") if ratio > 1 else (f"{quantity(1 / ratio, 'x')} {less}", "worse")
    )
