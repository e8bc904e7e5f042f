"""Trained weights that are part of the package: float16, safetensors, made by `benchmarks/train_tasks.py`."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from planish.errors import ModelError

FOLDER = Path(__file__).parent


def read_weights(name: str, model: nn.Module) -> str:
    """Load a network's weights, and switch it to evaluation mode.

    Returns:
        What was recorded with them: how accurate the network is, on what.

    Raises:
        ModelError: The package has no such file, or it holds another network.
    """
    file = FOLDER / f"{name}.safetensors"
    try:
        with safe_open(file, framework="pt") as stored:
            tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118  # not a mapping
            recorded = (stored.metadata() or {})["result"]
        like = model.state_dict()
        model.load_state_dict({key: value.to(like[key].dtype) for key, value in tensors.items()})
    except (OSError, KeyError, RuntimeError) as error:
        raise ModelError(f"the weights cannot be read: {error}", str(file), "install planish again") from error
    model.eval()
    return recorded


def write_weights(name: str, model: nn.Module, result: str) -> Path:
    """Keep a network's weights, rounded to float16, with a sentence on what it reached."""
    file = FOLDER / f"{name}.safetensors"
    half = {key: t.half() if t.is_floating_point() else t for key, t in model.state_dict().items()}
    save_file({key: t.contiguous().clone() for key, t in half.items()}, file, metadata={"result": result})
    return file


def rounded(model: nn.Module) -> nn.Module:
    """The network as it will be read back: parameters and buffers rounded to float16."""
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(tensor.half())
    return model
