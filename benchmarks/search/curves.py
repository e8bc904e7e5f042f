"""Best so far against trials, as a small SVG: one line a method, with the band of its seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

COLORS = ("#0a6c8f", "#b8430f", "#5c6368", "#7a5ea8", "#4d8a3d", "#b3862b", "#a83f6f", "#3f5fa8")
PLOT, HEIGHT, LEFT, TOP, BOTTOM = 570, 380, 64, 34, 44
LETTER = 7
"""Room of one, in the names at the right."""


def write(path: Path, title: str, what: str, curves: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """Draw curves.

    Args:
        path: Of the SVG.
        title: Above it.
        what: Label of the vertical axis.
        curves: For each method one sequence a seed: the best so far after each trial.
    """
    bands = {name: np.array([list(each) for each in rows], dtype=float) for name, rows in curves.items()}
    width = PLOT + LETTER * (max(map(len, bands)) + len(" 0.1234"))
    last = max(band.shape[1] for band in bands.values())
    finite = np.concatenate([band[np.isfinite(band)] for band in bands.values()])
    low, high = float(np.quantile(finite, 0.02)), float(finite.max())
    high, low = high + 0.04 * (high - low or 1), low - 0.02 * (high - low or 1)

    def x(trial: float) -> float:
        return LEFT + (PLOT - LEFT) * (trial - 1) / max(last - 1, 1)

    def y(value: float) -> float:
        share = (min(max(value, low), high) - low) / (high - low)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" role="img" font-family="sans-serif" '
        f'font-size="12"><title>{title}</title><rect width="100%" height="100%" fill="#fdfdfc"/>',
        f'<text x="{LEFT}" y="20" font-size="14" fill="#1b1e21">{title}</text>',
    ]
    parts += [
        f'<path d="M{LEFT} {y(value):.1f}H{PLOT}" stroke="#dfe0dc"/>'
        f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end" fill="#5c6368">{value:.3g}</text>'
        for value in np.linspace(low, high, 6)[1:-1]
    ]
    for trial in np.unique(np.linspace(1, last, 6).round().astype(int)):
        parts.append(f'<text x="{x(trial):.1f}" y="{HEIGHT - 24}" text-anchor="middle" fill="#5c6368">{trial}</text>')
    parts.append(f'<text x="{(LEFT + PLOT) / 2}" y="{HEIGHT - 8}" text-anchor="middle" fill="#5c6368">trials</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle" fill="#5c6368">{what}</text>'
    )
    ends: list[tuple[float, str, str]] = []
    for place, (name, band) in enumerate(bands.items()):
        color = COLORS[place % len(COLORS)]
        trials = range(1, band.shape[1] + 1)
        median, under, over = (np.nanquantile(band, q, axis=0) for q in (0.5, 0.25, 0.75))
        if len(band) > 1:
            there = " ".join(f"{x(t):.1f},{y(v):.1f}" for t, v in zip(trials, over, strict=True))
            back = " ".join(f"{x(t):.1f},{y(v):.1f}" for t, v in reversed(list(zip(trials, under, strict=True))))
            parts.append(f'<polygon points="{there} {back}" fill="{color}" opacity="0.14"/>')
        line = " ".join(f"{x(t):.1f},{y(v):.1f}" for t, v in zip(trials, median, strict=True))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>')
        ends.append((y(float(median[-1])), f"{name} {median[-1]:.4g}", color))
    lowest = -np.inf
    for at, text, color in sorted(ends):  # from the top down, none over another
        lowest = max(at, lowest + 14)
        parts.append(f'<text x="{PLOT + 6}" y="{lowest + 4:.1f}" fill="{color}">{text}</text>')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")


def best_so_far(values: Sequence[float]) -> list[float]:
    """The largest value up to each place; NaN counts as nothing."""
    return np.fmax.accumulate(np.array(values, dtype=float)).tolist()
