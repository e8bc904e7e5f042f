"""Run with `TRITON_INTERPRET=1`: prints each format whose Triton kernel differs from torch, by value or by code."""

# ruff: noqa: A001
from __future__ import annotations

import sys

import torch

from planish.formats import get
from planish.formats.kernels.describe import element_struct
from planish.formats.kernels.gpu import GpuKernel, takes
from tests.formats.contract import fits, same
from tests.formats.kernels.same import inputs, torch_only


def main(names: list[str]) -> None:
    for name in names:
        format = get(name)
        element = element_struct(format)
        assert element is not None
        kernel, seen = GpuKernel(format, element), 0
        for x in inputs(format):
            if not fits(format, x.shape) or not takes(format, tuple(x.shape)):
                continue
            with torch_only():
                codes, y = format.encode(x).codes, format.cast(x)
                ours, z = kernel.encode(x, None)[0], kernel.cast(x, None)
            seen += 1
            if not (torch.equal(codes, ours) and same(y, z)):
                print(f"{name} differs on {tuple(x.shape)} {x.dtype}")
        if not seen:
            print(f"{name} was not tried")


if __name__ == "__main__":
    main(sys.argv[1:])
