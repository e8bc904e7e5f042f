"""Which storages are alive, and what has been computed, while operations run on tensors without data."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils import flop_counter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_aten = torch.ops.aten


def _attention(query: Any, key: Any, value: Any, *_: Any, out_val: Any = None, **__: Any) -> int:
    return flop_counter.sdpa_flop_count(query.shape, key.shape, value.shape)


def _attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, out_val: Any = None, **__: Any) -> int:
    return flop_counter.sdpa_backward_flop_count(grad.shape, query.shape, key.shape, value.shape)


def _recurrent(x: Any, of_input: Any, of_state: Any, *_: Any, out_val: Any = None, **__: Any) -> int:
    return 2 * x.shape[0] * x.shape[1] * (of_input.numel() + of_state.numel())  # (time, batch, features)


def _recurrent_backward(x: Any, of_input: Any, of_state: Any, *_: Any, out_val: Any = None, **__: Any) -> int:
    return 2 * _recurrent(x, of_input, of_state)


FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_counter.flop_registry,
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,  # which torch counts on a GPU only
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    _aten.mkldnn_rnn_layer: _recurrent,
    _aten.mkldnn_rnn_layer_backward: _recurrent_backward,
}
"""Floating-point operations of each matrix product, convolution and attention, by torch's own count."""


def _forward_copies(call: Any, result: Any) -> int:
    """Input and weight in oneDNN's own layout; then the output, out of it."""
    x, w = call[:2]
    return max(x.nbytes + w.nbytes, result.nbytes) if x.dtype in ONEDNN else 0


def _backward_copies(call: Any, result: Any) -> int:
    """As above, for the gradient of the input, and after it for that of the weight."""
    y, x, w = call[:3]
    if x.dtype not in ONEDNN:
        return 0
    before = max(y.nbytes + w.nbytes, x.nbytes) - w.nbytes if result[0] is not None else 0
    return max(before, x.nbytes + y.nbytes, w.nbytes, _unfolded(y, w))


def _unfolded(y: Any, w: Any) -> int:
    """Where the kernel is wider than the output, each thread multiplies unfolded patches of one sample."""
    if all(size <= room for size, room in zip(w.shape[2:], y.shape[2:], strict=True)):
        return 0
    patches = w.numel() // w.shape[0] * (y.numel() // (y.shape[0] * y.shape[1])) * w.element_size()
    return torch.get_num_threads() * (4 * w.nbytes + patches)


ONEDNN = (torch.float32, torch.bfloat16)
COPIES: dict[Any, Callable[[Any, Any], int]] = {
    _aten.convolution: _forward_copies,
    _aten.convolution_backward: _backward_copies,
}
"""Bytes that an operation takes besides its results while it runs on a CPU. Found by measuring convolutions of twenty
shapes (torch 2.13, AMD Zen 3): exact for most, short by up to half for the gradient of the input of a strided one."""


class Ledger(TorchDispatchMode):
    """Counts the bytes of live storages, and the FLOPs of products, by who is at work.

    Attributes:
        owner: Returns who is at work, any value that can be a key.
        live: Bytes alive.
        peak: The most bytes alive at once since `restart`.
        peak_owner: Who was at work then.
        flops: By owner.
    """

    def __init__(self, owner: Callable[[], Any]) -> None:
        super().__init__()
        self.owner = owner
        self.live = self.peak = 0
        self.peak_owner: Any = None
        self.flops: Counter[Any] = Counter()
        self._numbers: dict[int, tuple[int, int]] = {}  # address of a live storage -> its number, its bytes
        self._count = 0

    def restart(self) -> None:
        """Forget the peak and the work, not what is alive."""
        self.peak, self.peak_owner = self.live, None
        self.flops.clear()

    def storages(self, value: Any) -> Iterator[tuple[int, int, torch.Tensor]]:
        """Number, bytes and a tensor of each storage in a value; a number is never given twice."""
        for leaf in tree_leaves(value):
            if isinstance(leaf, torch.Tensor):
                yield *self._hold(leaf), leaf

    def _hold(self, tensor: torch.Tensor) -> tuple[int, int]:
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address not in self._numbers:
            self._count += 1
            self._numbers[address] = self._count, storage.nbytes()
            weakref.finalize(storage, self._release, address)
            self.live += storage.nbytes()
            self._rise(0)
        return self._numbers[address]

    def _rise(self, more: int) -> None:
        if self.live + more > self.peak:
            self.peak, self.peak_owner = self.live + more, self.owner()

    def _release(self, address: int) -> None:
        self.live -= self._numbers.pop(address)[1]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for _ in self.storages(result):
            pass
        if copies := COPIES.get(func._overloadpacket):
            self._rise(copies(args, result))
        if formula := FORMULAS.get(func._overloadpacket):
            self.flops[self.owner()] += formula(*args, **(kwargs or {}), out_val=result)
        return result
