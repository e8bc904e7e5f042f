"""What a step is computed in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from planish.training import engine
from planish.training.engine import Alone, chosen
from planish.training.options import Training

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("features", "wanted"), [(["avx2"], "fp32"), (["avx512f", "avx512_bf16"], "bf16"), (["amx_bf16"], "bf16")]
)
def test_auto_is_what_the_processor_multiplies(
    monkeypatch: pytest.MonkeyPatch, features: list[str], wanted: str
) -> None:
    monkeypatch.setattr(engine, "cpu_features", lambda: features)
    assert chosen("auto", CPU) == wanted
    assert chosen("fp16", CPU) == "fp16"


def test_another_device_has_no_say_of_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "cpu_features", lambda: ["avx512_bf16"])
    assert chosen("auto", torch.device("meta")) == "fp32"


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(8, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.mix(x).reshape(*x.shape[:2], 3, 2, 4).permute(2, 0, 3, 1, 4)
        return functional.scaled_dot_product_attention(q, k, v)


class Seen(TorchDispatchMode):
    """The operations that ran, and the types that they gave."""

    def __init__(self) -> None:
        super().__init__()
        self.types: dict[str, torch.dtype] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.types[str(func)] = result.dtype
        elif isinstance(result, tuple) and isinstance(result[0], torch.Tensor):
            self.types[str(func)] = result[0].dtype
        return result


def backward(precision: Any) -> tuple[dict[str, torch.dtype], torch.Tensor]:
    torch.manual_seed(0)
    module, x = Attention(), torch.randn(2, 5, 8)
    made = Alone(module, lambda net, item: net(*item).float().pow(2).sum(), Training(steps=1, precision=precision))
    with Seen() as seen:
        made.backward([(x,)], 0)
    assert module.mix.weight.grad is not None
    return seen.types, module.mix.weight.grad


def test_attention_in_bf16_is_plain_products_on_a_cpu() -> None:
    types, exact = backward("fp32")
    assert any("flash" in name for name in types)
    types, near = backward("bf16")
    assert not any("flash" in name for name in types)
    assert types["aten.addmm.default"] == torch.bfloat16
    torch.testing.assert_close(near, exact, rtol=0, atol=0.05 * float(exact.abs().max()))
