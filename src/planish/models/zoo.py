"""The model families as tasks: a network, example inputs, data, a metric.

Small networks are trained on scikit-learn's digits, once, from a fixed seed. The large ones have random weights,
because their trained ones are not in any package; batch-norm statistics are settled on the calibration images, so that
activations have the scales of a trained network's. What such a task measures is fidelity to its own fp32 self.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from planish.models import digits, images
from planish.models.convnet import ConvNet
from planish.models.data import Batches
from planish.models.lstm import LSTMClassifier
from planish.models.mlp import MLP
from planish.models.mobilenet import MobileNetV2
from planish.models.resnet import R3D18, ResNet18
from planish.models.task import Task
from planish.models.unet import UNet
from planish.models.vae import VAE
from planish.models.vit import ViT


def _cross_entropy(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(model(x), y)


def _evidence_bound(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Negative evidence lower bound of a VAE, with its prior weighted down so that images stay sharp."""
    image, mean, log_variance = model(x, torch.randn(len(x), 8))
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
    return functional.binary_cross_entropy(image, x, reduction="none").sum(1).mean() + 0.2 * divergence


def _digits(name: str, family: str, build: Callable[[], nn.Module], shape: tuple[int, ...]) -> Task:
    return Task(
        model=digits.trained(build, _cross_entropy, shape),
        example_inputs=(digits.digits("train", shape)[0][:2],),
        calibration=digits.batches("calibration", shape),
        evaluation=digits.batches("evaluation", shape),
        validation=digits.batches("validation", shape),
        training=digits.batches("train", shape),
        metric=("accuracy", "sqnr"),
        name=name,
        dynamic={"x": {0: "batch"}},
        family=family,
        description="trained on scikit-learn's digits from a fixed seed",
    )


def mlp() -> Task:
    """A perceptron on 64 pixels."""
    return _digits("mlp", "multilayer perceptron", MLP, (64,))


def convnet() -> Task:
    """A small convolutional network on 8×8 images."""
    return _digits("convnet", "convolutional network", ConvNet, (1, 8, 8))


def lstm() -> Task:
    """An LSTM that reads an image row by row."""
    return _digits("lstm", "recurrent network", LSTMClassifier, (8, 8))


def vae() -> Task:
    """A variational autoencoder of 64 pixels, judged by how it reconstructs images it has not seen."""

    def data(split: str) -> Batches:
        batches = digits.batches(split)
        return Batches([((x, torch.zeros(len(x), 8)), {}, x) for (x,), _, _ in batches], batches.description)

    calibration = data("calibration")
    return Task(
        model=digits.trained(VAE, _evidence_bound, (64,)),
        example_inputs=tuple(part[:2] for part in calibration.items[0][0]),
        calibration=calibration,
        evaluation=data("evaluation"),
        validation=data("validation"),
        metric=("mse", "sqnr"),
        name="vae",
        dynamic={"image": {0: "batch"}, "noise": {0: "batch"}},
        family="autoencoder",
        description="trained on scikit-learn's digits from a fixed seed",
    )


def _synthetic(name: str, family: str, build: Callable[[], nn.Module], pictures: Tensor, argument: str = "x") -> Task:
    """A network with random weights and as many synthetic pictures: half to calibrate, a quarter each for the rest."""
    half, quarter = len(pictures) // 2, len(pictures) // 4
    calibration, validation, evaluation = pictures.split([half, quarter, len(pictures) - half - quarter])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build()
        _settle(model, calibration[:8])
    return Task(
        model=model,
        example_inputs=(pictures[:2].contiguous(),),
        calibration=images.batches(calibration),
        evaluation=images.batches(evaluation),
        validation=images.batches(validation),
        metric=("sqnr", "mean_cosine"),
        name=name,
        dynamic={argument: {0: "batch"}},
        family=family,
        description="random weights, synthetic dead-leaves images: fidelity to its own fp32 self, no accuracy",
    )


def _settle(model: nn.Module, x: Tensor) -> None:
    """Set batch-norm statistics to those of `x` (a plain average of its batches: one)."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    for norm in norms:
        norm.momentum = None
    with torch.no_grad():
        model.train()(x)
    for norm in norms:
        norm.momentum = 0.1


def resnet18(size: int = 224, count: int = 32) -> Task:
    """ResNet-18 on `count` images of `size`×`size`."""
    return _synthetic("resnet18", "convolutional network", ResNet18, images.dead_leaves(count, size))


def mobilenet_v2(size: int = 224, count: int = 32) -> Task:
    """MobileNetV2 on `count` images of `size`×`size`."""
    return _synthetic("mobilenet_v2", "convolutional network", MobileNetV2, images.dead_leaves(count, size))


def vit_tiny(count: int = 32) -> Task:
    """ViT-tiny/16 on `count` images of 224×224."""
    return _synthetic("vit_tiny", "transformer encoder", ViT, images.dead_leaves(count), "image")


def unet(size: int = 128, count: int = 16) -> Task:
    """U-Net on `count` images of `size`×`size`."""
    return _synthetic("unet", "encoder-decoder", UNet, images.dead_leaves(count, size))


def r3d18(size: int = 112, frames: int = 8, count: int = 8) -> Task:
    """R3D-18 on `count` clips of `frames` pictures of `size`×`size`."""
    return _synthetic("r3d18", "3-D convolutional network", R3D18, images.clips(count, frames, size))
