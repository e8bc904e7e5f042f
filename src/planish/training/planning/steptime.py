"""Seconds and bytes of one step of training: products by a roofline, links by latency and bandwidth, pipelines by
their bubbles.

    estimate(stages, setting, hardware, batch)

The constants (how near to its peaks a device comes) were fitted on some published rows and are judged on others:
docs/planning.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planish.training.planning.collectives import Group, gather, reduce, send
from planish.training.planning.constants import Constants, constants
from planish.training.planning.hardware import Hardware
from planish.training.planning.memory import Memory, memory
from planish.training.planning.setting import Setting
from planish.training.planning.work import Layer, Product, Stages, total_parameters

ADAM = 32
"""Bytes that an AdamW step moves for each parameter: read and write it and two moments, read the gradient, twice
(its norm is clipped)."""

Parts = tuple[float, float, float, float, float, float, float]
"""Of a step, as `Estimate` has them."""


@dataclass(frozen=True)
class LayerTime:
    """Seconds of one layer and microbatch on one device.

    Attributes:
        forward: Computing.
        backward: Computing, recomputation included.
        tensor: Tensor parallel traffic, forward.
        tensor_backward: Likewise backward, that of recomputation included.
        shards: Gathering its shards that is not hidden, forward and backward, and reducing its gradients.
    """

    forward: float
    backward: float
    tensor: float
    tensor_backward: float
    shards: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.forward + self.backward + self.tensor + self.tensor_backward + self.shards


@dataclass(frozen=True)
class Estimate:
    """What a step takes, as modeled.

    Attributes:
        seconds: Of the step.
        compute: Of it, computing on the busiest device.
        tensor: Tensor parallel traffic.
        shards: Shards gathered and reduced, as far as it is not hidden.
        replicas: Gradients of replicas, likewise.
        pipeline: Messages between stages.
        bubble: Waiting for other stages.
        optimizer: Updating parameters.
        memory: Of each device of the pipeline.
        layers: Seconds by layer, in order.
    """

    seconds: float
    compute: float
    tensor: float
    shards: float
    replicas: float
    pipeline: float
    bubble: float
    optimizer: float
    memory: tuple[Memory, ...]
    layers: tuple[LayerTime, ...]

    @property
    def peak(self) -> float:
        """Bytes on the fullest device."""
        return max(each.total for each in self.memory)

    @property
    def parts(self) -> dict[str, float]:
        """What the step consists of, in seconds."""
        names = ("compute", "tensor", "shards", "replicas", "pipeline", "bubble", "optimizer")
        return {name: getattr(self, name) for name in names}


class Model:
    """The step-time model of one kind of device at one setting."""

    def __init__(self, hardware: Hardware, setting: Setting, fitted: Constants | None = None) -> None:
        self.hardware, self.setting = hardware, setting
        self.fitted = fitted or constants(hardware.key)
        inner = setting.tp
        self.tensor = Group.of(hardware, setting.tp, 1)
        self.shards = Group.of(hardware, setting.fsdp, inner)
        self.replicas = Group.of(hardware, setting.dp, inner * setting.fsdp)
        self.apart = inner * setting.fsdp * setting.dp

    def product(self, product: Product, samples: float) -> float:
        """Seconds of the products of one kind: arithmetic at what their size allows, or moving their operands."""
        setting, fitted = self.setting, self.fitted
        rows, columns, inner, flops = product.rows, product.columns, product.inner, product.flops * samples
        count = product.flops / (2 * rows * columns * inner)
        if product.core:
            count *= samples
        else:
            rows *= samples
        if product.divided:
            flops /= setting.tp
            columns /= setting.tp if product.divided == "columns" else 1
            inner /= setting.tp if product.divided == "inner" else 1
            count /= setting.tp if product.divided == "count" else 1
        side = 3 / (1 / rows + 1 / columns + 1 / inner)
        low = setting.precision == "fp8" and not product.core
        peak = self.hardware.peak["fp8" if low else "bf16" if setting.precision == "fp8" else setting.precision]
        reached = peak * (fitted.product8 if low else fitted.product) * side / (side + fitted.side)
        # Attention that is never written out moves its inputs and outputs only, less than this says: its arithmetic
        # rules.
        moved = 0 if product.core else count * (rows * columns + (rows + columns) * inner) * setting.width
        return max(flops / reached, moved / (self.hardware.bandwidth * fitted.memory))

    def elementwise(self, elements: float) -> float:
        """Seconds of elementwise work that reads and writes so many elements."""
        fitted = self.fitted
        times = {"fused": 1.0, "compiled": fitted.fused, "eager": fitted.eager}[self.setting.kernels]
        return elements * self.setting.width * times / (self.hardware.bandwidth * fitted.memory)

    def reduced(self, elements: float, meetings: float = 1) -> float:
        """Seconds of tensor parallel traffic that reduces so many elements in so many messages."""
        seconds = reduce(self.tensor, elements * self.setting.width, self.hardware, self.fitted, meetings)
        return seconds * (1 - self.fitted.asynchronous if self.setting.asynchronous else 1)

    def layer(self, layer: Layer, samples: float) -> LayerTime:
        """Seconds of one layer on a microbatch of so many samples."""
        setting, tp = self.setting, self.setting.tp
        alone = layer.traffic / (tp if setting.sequence else 1) + layer.shared_traffic / tp
        products = [self.product(product, samples) for product in layer.products]
        core = sum(time for time, product in zip(products, layer.products, strict=True) if product.core)
        core += self.elementwise(samples * layer.core_traffic / tp)
        rest = sum(time for time, product in zip(products, layer.products, strict=True) if not product.core)
        start = self.fitted.start if tp == 1 else self.fitted.start_distributed
        other = self.elementwise(samples * alone) + layer.operations * start
        forward = core + rest + other
        tensor = self.reduced(samples * layer.reduced, layer.meetings)
        again = {"none": 0.0, "selective": core, "ops": rest / 2 + other, "full": forward}[layer.recompute]
        resent = {"none": 0.0, "selective": 0.0, "ops": tensor / 2, "full": tensor}[layer.recompute]
        backward = 2 * forward + again
        tensor_backward = self.reduced(samples * layer.reduced_backward, layer.meetings_backward) + resent
        shards = self._shards(layer, forward + tensor, backward + tensor_backward)
        return LayerTime(forward, backward, tensor, tensor_backward, shards)

    def _shards(self, layer: Layer, forward: float, backward: float) -> float:
        """What gathering a layer's shards takes beyond what computing hides."""
        if self.setting.fsdp == 1 and not self.setting.layered:
            return 0.0
        size = layer.parameters + layer.shared_parameters / self.setting.tp
        gathered = gather(self.shards, size * self.setting.width, self.hardware, self.fitted, self.setting.messages)
        scattered = gather(self.shards, size * self.setting.gradient, self.hardware, self.fitted, self.setting.messages)
        if self.setting.gathered_once:
            return (gathered + scattered) / self.setting.microbatches
        scattered /= self.setting.microbatches  # gradients add up first, and are shared once
        hidden = self.fitted.hidden
        moved = self.fitted.copied * size / (self.hardware.bandwidth * self.fitted.memory)
        copied = moved * (2 * self.setting.width + self.setting.gradient / self.setting.microbatches)
        return copied + max(0.0, gathered - hidden * forward) + max(0.0, gathered + scattered - hidden * backward)

    def step(self, stages: Stages, batch: float) -> Estimate:
        """Seconds and bytes of a step.

        Args:
            stages: The layers of each stage; stages are dealt out to the devices of the pipeline in turn.
            batch: Samples of a step, over all devices.
        """
        setting = self.setting
        samples = batch / (setting.dp * setting.fsdp * setting.microbatches)
        known: dict[tuple[str, str], LayerTime] = {}
        for layer in (layer for stage in stages for layer in stage):
            key = layer.like or layer.path, layer.recompute
            if key not in known:
                known[key] = self.layer(layer, samples)
        times = [[known[layer.like or layer.path, layer.recompute] for layer in stage] for stage in stages]
        devices = [[time for index in setting.own(device) for time in times[index]] for device in range(setting.pp)]
        message = self._message(stages, samples)
        busy = [sum(time.total for time in own) for own in devices]
        slowest = max(range(setting.pp), key=lambda device: busy[device])
        own = devices[slowest]
        compute = setting.microbatches * sum(time.forward + time.backward for time in own)
        tensor = setting.microbatches * sum(time.tensor + time.tensor_backward for time in own)
        shards = setting.microbatches * sum(time.shards for time in own)
        pipeline = setting.microbatches * message
        bubble = self._bubble(devices, message)
        held = max(
            self._held([layer for index in setting.own(device) for layer in stages[index]])
            for device in range(setting.pp)
        )
        backward = sum(time.backward for time in own)
        messages = len(own) if setting.layered else 1
        shared = reduce(self.replicas, held * setting.gradient, self.hardware, self.fitted, messages)
        replicas = max(0.0, shared - self.fitted.hidden * backward) if setting.overlapped else shared
        optimizer = held * ADAM / (self.hardware.bandwidth * self.fitted.memory)
        parts = self._crowded((compute, tensor, shards, replicas, pipeline, bubble, optimizer), busy)
        flat = tuple(time for stage in times for time in stage)
        return Estimate(sum(parts), *parts, memory(stages, setting, samples), flat)

    def _crowded(self, parts: Parts, busy: Sequence[float]) -> Parts:
        """The parts of a step where devices share fewer cores: while one waits, others have more of them."""
        compute, tensor, shards, replicas, pipeline, bubble, optimizer = parts
        working = sum(parts) - bubble
        if self.hardware.cores == 0 or working == 0:
            return parts
        spread = sum(busy) / len(busy) / max(busy)  # what the average device has to do of what the busiest has
        crowd = self.setting.devices / self.hardware.cores * spread
        if crowd * working <= working + bubble:
            return parts
        compute, tensor, shards, replicas, pipeline, optimizer = (
            crowd * each for each in (compute, tensor, shards, replicas, pipeline, optimizer)
        )
        return compute, tensor, shards, replicas, pipeline, 0.0, optimizer

    def _held(self, layers: Sequence[Layer]) -> float:
        """Parameters that one device updates."""
        shared = sum(layer.shared_parameters for layer in layers) / self.setting.tp
        return (
            total_parameters(layers) - sum(layer.shared_parameters for layer in layers) + shared
        ) / self.setting.fsdp

    def _message(self, stages: Stages, samples: float) -> float:
        """Seconds that sending and receiving adds to each microbatch of a device."""
        setting = self.setting
        if setting.pp == 1:
            return 0.0
        output = max(stage[-1].output for stage in stages[:-1])
        size = samples * output * setting.width / (setting.tp if setting.scattered else 1)
        return 2 * setting.chunks * send(size, self.apart, self.hardware, self.fitted)

    def _bubble(self, devices: Sequence[Sequence[LayerTime]], message: float) -> float:
        """Waiting, by schedule: (p-1)/m of the work, less by the chunks that stages are cut into (arXiv 2104.04473,
        section 2.2); zero-bubble schedules fill it with gradients of weights (arXiv 2401.10241)."""
        setting = self.setting
        forward = sum(time.forward + time.tensor for own in devices for time in own) / setting.pp
        whole = sum(time.total for own in devices for time in own) / setting.pp + message
        if setting.schedule == "zero-bubble":
            return (setting.pp - 1) * message
        filled = 2 * forward if setting.schedule == "interleaved-zero-bubble" else 0.0
        return (setting.pp - 1) * max(0.0, whole - filled) / setting.chunks


def estimate(
    stages: Stages, setting: Setting, hardware: Hardware, batch: float, fitted: Constants | None = None
) -> Estimate:
    """Seconds and bytes of one step, as `Model.step`."""
    return Model(hardware, setting, fitted).step(stages, batch)
