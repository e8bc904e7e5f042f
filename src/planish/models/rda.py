"""Data frames in R's own files (`.rda`), read without R.

R's serialization: "R Internals", section 1.8. Only what a data frame is made of is understood, in the XDR form, version
2, which `save()` wrote until R 3.5; anything else is refused. Nothing in a file is evaluated.
"""

from __future__ import annotations

import lzma
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from planish.errors import DataError

_SYMBOL, _PAIRS, _CHARS, _INTS, _REALS, _STRINGS, _LIST, _NULL, _SEEN = 1, 2, 9, 13, 14, 16, 19, 254, 255


def read_frame(path: Path) -> dict[str, np.ndarray]:
    """The columns of the one data frame in a file; a factor is an array of its labels' numbers, from 0.

    Raises:
        DataError: The file holds something else, or is damaged.
    """
    try:
        content = lzma.decompress(path.read_bytes())
        if not content.startswith(b"RDX2\nX\n"):
            raise ValueError("not a file of version 2 in XDR form")
        saved = _Reader(content[7:])
        saved.numbers(">i4", 3)  # versions of the format, of R, and of the oldest R that reads it
        (frame,) = saved.item().values()
        columns, names = frame
        return dict(zip(names["names"], columns, strict=True))
    except (OSError, lzma.LZMAError, ValueError, KeyError, TypeError, IndexError, struct.error) as error:
        raise DataError(f"not a data frame of R: {error}", str(path), "delete the file and run again") from error


class _Reader:
    """A place in a file. `item` reads what stands there and moves on."""

    def __init__(self, content: bytes) -> None:
        self.content, self.place = content, 0
        self.symbols: list[str] = []

    def numbers(self, kind: str, count: int) -> np.ndarray:
        """So many numbers of a numpy type."""
        start, dtype = self.place, np.dtype(kind)
        self.place += count * dtype.itemsize
        if count < 0 or self.place > len(self.content):
            raise ValueError("it ends too early")
        return np.frombuffer(self.content, dtype, count, start)

    def number(self) -> int:
        return int(self.numbers(">i4", 1)[0])

    def item(self) -> Any:
        """A pairlist as a dict, a symbol or string as text, a vector as an array or list.

        A vector with attributes is a pair of it and them; one whose attributes make it a factor counts from 0.
        """
        flags = self.number()
        kind, with_attributes = flags & 255, bool(flags & 512)
        if kind == _NULL:
            return {}
        if kind == _PAIRS:
            tag = self.item() if flags & 1024 else ""
            value, rest = self.item(), self.item()
            return {tag: value, **rest}
        if kind == _SYMBOL:
            self.symbols.append(self.item())
            return self.symbols[-1]
        if kind == _SEEN:
            return self.symbols[(flags >> 8) - 1]
        read = _VECTORS.get(kind)
        if read is None:
            raise ValueError(f"it holds an R object of type {kind}")
        value = read(self, self.number())
        attributes = self.item() if with_attributes else {}
        if "levels" in attributes:
            return value - 1
        return (value, attributes) if attributes else value


_VECTORS: dict[int, Callable[[_Reader, int], Any]] = {
    _CHARS: lambda r, n: r.numbers("u1", max(n, 0)).tobytes().decode("latin-1"),
    _INTS: lambda r, n: r.numbers(">i4", n).astype(np.int64),
    _REALS: lambda r, n: r.numbers(">f8", n).astype(np.float64),
    _STRINGS: lambda r, n: [r.item() for _ in range(n)],
    _LIST: lambda r, n: [r.item() for _ in range(n)],
}
