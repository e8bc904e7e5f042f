"""What a client sends of its update: all of it, its codes in a number format, or its largest numbers only.

The numbers stand one after the other in the order of the tensors' names, with nothing that both sides know already
(shapes, formats, how many): a compressed update is a string of bytes whose length the server can predict.
What was rounded away or left out is added to the client's next update (error feedback: Seide et al. 2014; Stich,
Cordonnier and Jaggi, arXiv 1809.07599; for federated rounds, Sattler et al., arXiv 1903.02891).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from planish import formats
from planish.errors import DataError, OptionError
from planish.formats import Codes, Format
from planish.formats.codes import pack, unpack

SMALL = 256
"""Tensors of fewer numbers, biases and the statistics of norms, are sent whole and in bfloat16 at least: they are a
small part of the bytes, and coarse numbers in them cost accuracy."""
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Update:
    """How updates are sent; its text form is "float32", a format ("int8", "int4@g32*float16") or "topk:1%[,format]".

    Attributes:
        form: The format of the numbers that are sent.
        keep: The share of each tensor's numbers that is sent, those of the greatest size.
    """

    form: str = "float32"
    keep: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise OptionError(f"a share is above 0 and at most 1, not {self.keep!r}", "update", "topk:1%")
        format = self.format  # noqa: A001
        if format.is_dynamic or format.rounding == "stochastic":
            raise OptionError("an update stores its scales and rounds to the nearest", "update", "int8")
        if format.block is not None and not math.prod(format.scale_shape((7,))) <= 7:
            raise OptionError(f"{self.form} has no meaning for a row of numbers", "update", "int4@g32*float16")

    def __str__(self) -> str:
        if self.keep == 1:
            return self.form
        return f"topk:{100 * self.keep:g}%" + ("" if self.form == "int8" else f",{self.form}")

    @classmethod
    def parse(cls, text: str) -> Update:
        """The way that a text stands for.

        Raises:
            OptionError: It stands for none.
        """
        if not text.startswith("topk:"):
            return cls(text)
        share, comma, form = text.removeprefix("topk:").partition(",")
        try:
            keep = float(share.removesuffix("%")) / (100 if share.endswith("%") else 1)
        except ValueError as error:
            raise OptionError(f"{share!r} is no share", "update", "topk:1%") from error
        return cls(form if comma else "int8", keep)

    @property
    def format(self) -> Format:
        """Of the numbers that are sent."""
        return formats.get(self.form)

    @property
    def is_exact(self) -> bool:
        """Whether updates are sent as they are."""
        return self == Update()

    def nbytes(self, like: Tensors) -> int:
        """Bytes of the update of such tensors."""
        return sum(size for tensor in _sorted(like) for size in self._sizes(tensor.numel()))

    def encode(self, tensors: Tensors) -> tuple[bytes, dict[str, Tensor]]:
        """The bytes to send, and the tensors that the server will read in them.

        Raises:
            DataError: A tensor holds NaN or an infinity.
        """
        sent, read = [], {}
        for name in sorted(tensors):
            x = tensors[name].detach().float()
            if not bool(torch.isfinite(x).all()):
                raise DataError("the update holds NaN or an infinity", name, "a lower learning rate")
            data, read[name] = self._encode(x)
            sent.append(data)
        return b"".join(sent), read

    def decode(self, data: bytes, like: Tensors) -> dict[str, Tensor]:
        """The tensors in what `encode` gave, float32.

        Raises:
            DataError: There are not as many bytes as tensors of these shapes need, or they hold NaN.
        """
        if len(data) != (needed := self.nbytes(like)):
            raise DataError(f"the update has {len(data)} bytes, and tensors of these shapes need {needed}")
        rest, read = torch.frombuffer(bytearray(data), dtype=torch.uint8), {}
        for name in sorted(like):
            count = like[name].numel()
            parts = list(rest[: sum(self._sizes(count))].split(self._sizes(count)))
            rest = rest[sum(self._sizes(count)) :]
            read[name] = self._decode(parts, count).reshape(like[name].shape)
            if not bool(torch.isfinite(read[name]).all()):
                raise DataError("the update holds NaN or an infinity", name)
        return read

    # One tensor ------------------------------------------------------------------------------------------------------

    def _kept(self, count: int) -> int:
        return count if self.keep == 1 or count < SMALL else math.ceil(self.keep * count)

    def _form(self, count: int) -> Format:
        return formats.get("bfloat16") if count < SMALL and self.format.bits < 16 else self.format

    def _sizes(self, count: int) -> list[int]:
        """Bytes of each part: codes, one for each parameter of the format, then where the numbers stand."""
        kept, form = self._kept(count), self._form(count)
        levels = zip(form.levels, form.level_shapes((kept,)), strict=True)
        sizes = [_bytes(kept * form.bits), *(_bytes(element.bits * math.prod(size)) for (_, element), size in levels)]
        return sizes if kept == count else [*sizes, min(_bytes(count), _bytes(kept * _width(count)))]

    def _encode(self, x: Tensor) -> tuple[bytes, Tensor]:
        flat = x.reshape(-1)
        kept, form = self._kept(len(flat)), self._form(len(flat))
        places = None if kept == len(flat) else flat.abs().topk(kept, sorted=False).indices.sort().values
        codes = form.encode(flat if places is None else flat[places])
        packed = codes.pack()
        parts = [packed["codes"], *(packed[name] for name, _ in form.levels)]
        if places is None:
            return _joined(parts), codes.decode().reshape(x.shape)
        if _bytes(len(flat)) <= _bytes(kept * _width(len(flat))):
            mask = torch.zeros(len(flat), dtype=torch.int64)
            parts.append(pack(mask.index_fill_(0, places, 1), 1))
        else:
            parts.append(pack(places, _width(len(flat))))
        return _joined(parts), torch.zeros_like(flat).index_copy_(0, places, codes.decode()).reshape(x.shape)

    def _decode(self, parts: list[Tensor], count: int) -> Tensor:
        kept, form = self._kept(count), self._form(count)
        names = ["codes", *(name for name, _ in form.levels)]
        numbers = Codes.unpack(dict(zip(names, parts, strict=False)), form, (kept,)).decode()
        if kept == count:
            return numbers
        if _bytes(count) <= _bytes(kept * _width(count)):
            places = unpack(parts[-1], 1, (count,)).nonzero().reshape(-1)
        else:
            places = unpack(parts[-1], _width(count), (kept,)).long()
        if len(places) != kept or int(places.max()) >= count:
            raise DataError("the places of an update's numbers are damaged")
        return torch.zeros(count).index_copy_(0, places, numbers)


def _sorted(tensors: Tensors) -> Iterator[Tensor]:
    return (tensors[name] for name in sorted(tensors))


def _bytes(bits: int) -> int:
    return -(-bits // 8)


def _width(count: int) -> int:
    """Bits of the place of one of `count` numbers."""
    return max(1, (count - 1).bit_length())


def _joined(parts: list[Tensor]) -> bytes:
    return b"".join(part.contiguous().numpy().tobytes() for part in parts)
