"""Number formats: each a value, `Format(element, block, scale)`, whose scale is a format again.

The formats of `FORMATS` are attributes as well: `from planish.formats import int8, mxfp4`.
"""

from planish.formats import named
from planish.formats.block import TENSOR, TOKEN, Block, channel, group, tile
from planish.formats.codebook import AF4, NF4, Codebook
from planish.formats.codes import Codes, pack, unpack
from planish.formats.element import Element
from planish.formats.floating import BFLOAT16, E2M1, E2M3, E3M2, E4M3, E5M2, FLOAT16, FLOAT32, TF32, Float
from planish.formats.format import Format
from planish.formats.integer import Int
from planish.formats.lut import Lut
from planish.formats.named import FORMATS, SOURCES, fixed, get
from planish.formats.posit import Posit
from planish.formats.pow2 import E8M0, Pow2

__all__ = [
    "AF4",
    "BFLOAT16",
    "E2M1",
    "E2M3",
    "E3M2",
    "E4M3",
    "E5M2",
    "E8M0",
    "FLOAT16",
    "FLOAT32",
    "FORMATS",
    "NF4",
    "SOURCES",
    "TENSOR",
    "TF32",
    "TOKEN",
    "Block",
    "Codebook",
    "Codes",
    "Element",
    "Float",
    "Format",
    "Int",
    "Lut",
    "Posit",
    "Pow2",
    "channel",
    "fixed",
    "get",
    "group",
    "pack",
    "tile",
    "unpack",
]


def __getattr__(name: str) -> Format:
    if name in named.NAMED:
        return getattr(named, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *named.NAMED]
