"""What a step of the training loop is computed on: one device here, many in `planish.training.parallel`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from planish.record import cpu_features
from planish.training.options import Precision, Training

Item = tuple[Any, ...]
Loss = Callable[[nn.Module, Item], Tensor]
"""`(module, item of data) -> scalar`; it calls the module itself."""
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Engine(Protocol):
    """Computes losses and gradients; optimizer, schedule and checkpoints are the loop's.

    Attributes:
        device: Where its parameters are.
        scaler: Keeps small float16 gradients from vanishing; disabled for other types.
    """

    device: torch.device
    scaler: torch.amp.GradScaler

    def tensors(self) -> Mapping[str, Tensor]:
        """Parameters and buffers, or this process's part of them, by their names in the model."""
        ...

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """Those that train, by the same names."""
        ...

    def backward(self, items: Sequence[Item], step: int) -> float:
        """Add the gradient of the items' mean loss to the parameters' gradients, and return that loss."""
        ...

    def length(self) -> float:
        """Of the gradient of all parameters, those of other processes included."""
        ...

    def agreed(self, seconds: float) -> float:
        """What all processes take for the time, where one of them says `seconds`."""
        ...


class Alone:
    """One process and one device.

    Args:
        module: Its parameters that ask for gradients are trained in place.
        loss: Of an item.
        training: The options.
    """

    def __init__(self, module: nn.Module, loss: Loss, training: Training) -> None:
        self.module, self._loss = module, loss
        self.device = next((p.device for p in module.parameters() if p.requires_grad), torch.device("cpu"))
        self._precision: Precision = chosen(training.precision, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=training.precision == "fp16")

    def tensors(self) -> Mapping[str, Tensor]:
        """All of the module's."""
        return {**named_parameters(self.module), **dict(self.module.named_buffers())}

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """All that ask for gradients."""
        return {name: each for name, each in named_parameters(self.module).items() if each.requires_grad}

    def backward(self, items: Sequence[Item], step: int) -> float:
        """One item after the other."""
        total = 0.0
        for item in items:
            with _computing(self._precision, self.device):
                loss = self._loss(self.module, moved(item, self.device)) / len(items)
            total += float(loss.detach())
            self.scaler.scale(loss).backward()
        return total

    def length(self) -> float:
        """Of all gradients as one vector."""
        gradients = [each.grad for each in self.module.parameters() if each.requires_grad and each.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients))

    def agreed(self, seconds: float) -> float:
        """The time itself."""
        return seconds


def chosen(precision: Precision, device: torch.device) -> Precision:
    """What "auto" is on a device; any other precision is itself."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if device.type == "cpu" and {"avx512_bf16", "amx_bf16"} & {*cpu_features()} else "fp32"


@contextmanager
def _computing(precision: Precision, device: torch.device) -> Iterator[None]:
    """Autocast, with attention as plain products on a CPU: its fused backward pass is three times as slow in bf16."""
    if precision not in DTYPES:
        yield
        return
    attention = sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()
    with torch.autocast(device.type, DTYPES[precision]), attention:
        yield


def moved(item: Item, device: torch.device) -> Item:
    """An item of data on another device."""
    return pytree.tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, item)


def named_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Each parameter once, a tied one under the first of its names in the alphabet, in whatever tree it stands."""
    names: dict[nn.Parameter, str] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names[parameter] = min(name, names.get(parameter, name))
    return {name: parameter for parameter, name in names.items()}
