"""Bytes of each device of a pipeline: what it keeps of parameters, gradients, optimizer and activations."""

from __future__ import annotations

from dataclasses import dataclass

from planish.training.planning.setting import Setting
from planish.training.planning.work import Layer, Stages

MASTER, GRADIENT, MOMENTS = 4, 4, 8
"""Bytes of a parameter, of its gradient, and of AdamW's two moments: all stay in 32 bits whatever products use."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one device.

    Attributes:
        parameters: Its share.
        gradients: Likewise.
        optimizer: Likewise.
        activations: Of all microbatches in flight.
        gathered: Of the layers whose shards are gathered at a time, with their gradients.
    """

    parameters: float
    gradients: float
    optimizer: float
    activations: float
    gathered: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.parameters + self.gradients + self.optimizer + self.activations + self.gathered


def kept(layer: Layer, setting: Setting, samples: float) -> float:
    """Bytes of a layer that wait for the backward pass, on one device."""
    tp = setting.tp
    apart = tp if setting.sequence else 1
    own = layer.saved / apart + layer.shared_saved / tp
    inputs = layer.output / apart
    elements = {
        "none": own + layer.core_saved / tp,
        "selective": own,
        "ops": inputs + sum(p.rows * p.columns / tp for p in layer.products if not p.core) / 2,
        "full": inputs,
    }[layer.recompute]
    return elements * samples * setting.width


def in_flight(device: int, setting: Setting) -> float:
    """Microbatches whose activations a device of the pipeline holds at most, in parts of what all its stages keep.

    GPipe holds all, 1F1B as many as there are stages to come, interleaving some more (arXiv 2104.04473, section 2.2).
    """
    pp, count = setting.pp, setting.microbatches
    if pp == 1:
        return 1
    if setting.schedule == "gpipe":
        return count
    if setting.schedule == "1f1b":
        return min(count, pp - device)
    if setting.schedule == "zero-bubble":
        return min(count, pp)
    return min(count, (2 * (pp - device - 1) + (setting.chunks - 1) * pp + 1) / setting.chunks)


def memory(stages: Stages, setting: Setting, samples: float) -> tuple[Memory, ...]:
    """Of each device of the pipeline, at so many samples a microbatch."""
    found: list[Memory] = []
    for device in range(setting.pp):
        layers = [layer for index in setting.own(device) for layer in stages[index]]
        sizes = [layer.parameters + layer.shared_parameters / setting.tp for layer in layers]
        held = sum(sizes) / setting.fsdp
        activations = in_flight(device, setting) * sum(kept(layer, setting, samples) for layer in layers)
        again = [kept_whole(layer, setting, samples) for layer in layers if layer.recompute != "none"]
        gathered = 0.0
        if setting.fsdp > 1:
            at_once = sum(sizes) if setting.gathered_once else sum(sorted(sizes)[-2:])
            adding = sum(sizes) if setting.microbatches > 1 else max(sizes)  # whole gradients of all microbatches
            gathered = at_once * setting.width + adding * GRADIENT
        activations += max(again, default=0.0)
        found.append(Memory(held * MASTER, held * GRADIENT, held * MOMENTS, activations, gathered))
    return tuple(found)


def kept_whole(layer: Layer, setting: Setting, samples: float) -> float:
    """Bytes of a layer while its activations, computed again, wait for the backward pass."""
    tp = setting.tp
    own = layer.saved / (tp if setting.sequence else 1) + (layer.shared_saved + layer.core_saved) / tp
    return own * samples * setting.width
