"""Number formats at the speed of memory, where a kernel exists: C++ on the CPU, Triton on CUDA.

The torch code of `planish.formats` is the definition; a kernel gives the same bits, and where there is none (no
compiler, float64, stochastic rounding, a user's own element class, traced or wrapped tensors) torch computes.
"""

# ruff: noqa: A002  (`format` is the word for it everywhere else)
from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.nn import Parameter

from planish.formats.block import Block
from planish.formats.element import Element
from planish.formats.kernels.compiled import library
from planish.formats.kernels.cpu import CpuKernel, fitting, run_ranges
from planish.formats.kernels.describe import arrange, element_struct
from planish.formats.scaling import ranges as torch_ranges

if TYPE_CHECKING:
    from planish.formats.format import Format
    from planish.formats.kernels.gpu import GpuKernel

__all__ = ["fitting", "for_", "for_codes", "for_element", "library", "pack", "ranges", "to_codes", "unpack"]

_REAL = (torch.float32, torch.bfloat16, torch.float16)


def for_(format: Format, x: Tensor, parameters: Sequence[Tensor] | None = None) -> CpuKernel | GpuKernel | None:
    """The kernel that computes this format for these tensors; None where torch does.

    Raises:
        OptionError: The block does not fit `x`.
    """
    return for_element(format, x, parameters or ()) if format.residual is None else None


def for_element(format: Format, x: Tensor, parameters: Sequence[Tensor]) -> CpuKernel | GpuKernel | None:
    """As `for_`, for a format whose residual, if it has one, is left to the caller."""
    if x.dtype not in _REAL or not x.numel() or not _are_ours(x, *parameters):
        return None
    if x.device.type == "cuda":
        return _gpu(format, tuple(x.shape))
    kernel = _cpu(format)
    return kernel if kernel and arrange(kernel.block, tuple(x.shape)) else None


def for_codes(format: Format, codes: Tensor, parameters: Sequence[Tensor], kind: torch.dtype) -> CpuKernel | None:
    """The kernel that decodes; None where torch does."""
    kernel = _cpu(format) if format.residual is None and kind == torch.float32 else None
    if kernel is None or not kernel.decodes or not _on_cpu(codes, *parameters):
        return None
    return kernel if codes.numel() and arrange(kernel.block, tuple(codes.shape)) else None


def to_codes(element: Element, values: Tensor) -> Tensor:
    """As `Element.to_codes`, which computes where there is no kernel."""
    ours = values.dtype == torch.float32 and values.numel() and _on_cpu(values)
    kernel = _of_element(element) if ours else None
    return element.to_codes(values) if kernel is None else kernel.codes(values)


def pack(codes: Tensor, bits: int) -> Tensor | None:
    """As `planish.formats.codes.pack`; None where torch does it."""
    compiled = library() if codes.numel() and _on_cpu(codes) else None
    if compiled is None:
        return None
    codes, packed = codes.contiguous(), torch.empty(-(-codes.numel() * bits // 8), dtype=torch.uint8)
    compiled.planish_pack(
        codes.data_ptr(), codes.element_size(), codes.numel(), bits, packed.data_ptr(), torch.get_num_threads()
    )
    return packed


def unpack(data: Tensor, bits: int, count: int) -> Tensor | None:
    """Patterns of `bits` bits, in uint8 or, where that does not hold them, int64; None where torch does it."""
    compiled = library() if count and _on_cpu(data) else None
    if compiled is None:
        return None
    data, codes = data.contiguous(), torch.empty(count, dtype=torch.uint8 if bits <= 8 else torch.int64)
    compiled.planish_unpack(
        data.data_ptr(), count, bits, False, codes.data_ptr(), codes.element_size(), torch.get_num_threads()
    )
    return codes


def ranges(x: Tensor, block: Block, both: bool) -> tuple[Tensor, Tensor]:
    """As `planish.formats.scaling.ranges`, which computes where there is no kernel."""
    compiled = library() if x.dtype in _REAL and x.numel() and _on_cpu(x) else None
    arrangement = arrange(block, tuple(x.shape)) if compiled else None
    if compiled and arrangement and arrangement.in_runs:
        return run_ranges(compiled, x.float().contiguous(), arrangement.struct, arrangement.shape, both)
    return torch_ranges(x, block, both)


def _are_ours(x: Tensor, *others: Tensor) -> bool:
    """Whether they are memory of one device that has kernels, and nobody else follows what happens to them."""
    if x.device.type not in ("cpu", "cuda") or torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():
        return False
    return all(_is_plain(tensor) and tensor.device == x.device for tensor in (x, *others))


def _on_cpu(x: Tensor, *others: Tensor) -> bool:
    return x.device.type == "cpu" and _are_ours(x, *others)


def _is_plain(x: Tensor) -> bool:
    return type(x) in (Tensor, Parameter) and x.layout == torch.strided and not is_functorch_wrapped_tensor(x)


@lru_cache(maxsize=1024)
def _cpu(format: Format) -> CpuKernel | None:
    element = element_struct(format) if format.offset is None else None
    compiled = library() if element is not None else None
    return CpuKernel(compiled, format, element) if compiled and element else None


@lru_cache(maxsize=1024)
def _gpu(format: Format, shape: tuple[int, ...]) -> GpuKernel | None:
    element = element_struct(format)
    if element is None or importlib.util.find_spec("triton") is None:
        return None
    from planish.formats.kernels import gpu  # imports triton

    return gpu.GpuKernel(format, element) if gpu.takes(format, shape) else None


@lru_cache(maxsize=256)
def _of_element(element: Element) -> CpuKernel | None:
    from planish.formats.format import Format  # which imports this module

    return _cpu(Format(element, scale=None, overflow=element.overflows[-1]))
