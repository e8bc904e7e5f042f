"""Models by name: `planish.models.get("resnet18")()` is a Task, with its network, data and metric.

The table below is literal, so that listing it imports no torch. A model knows nothing of compression.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from planish.errors import UnknownName
from planish.registry import Registry

if TYPE_CHECKING:
    from planish.models.task import Task

models = Registry(
    "model",
    {
        "minilm": "planish.models.minilm:minilm",
        "mlp": "planish.models.zoo:mlp",
        "convnet": "planish.models.zoo:convnet",
        "lstm": "planish.models.zoo:lstm",
        "vae": "planish.models.zoo:vae",
        "resnet18": "planish.models.zoo:resnet18",
        "mobilenet_v2": "planish.models.zoo:mobilenet_v2",
        "vit_tiny": "planish.models.zoo:vit_tiny",
        "unet": "planish.models.zoo:unet",
        "r3d18": "planish.models.zoo:r3d18",
        "fashion_cnn": "planish.models.fashion:cnn",
        "fashion_vit": "planish.models.fashion:vit",
        "letters": "planish.models.letters:mlp",
        "minilm_sentiment": "planish.models.sentiment:minilm_sentiment",
    },
)


@dataclass(frozen=True)
class Card:
    """What `planish models` prints about a model.

    Attributes:
        parameters: How many.
        family: What kind of network.
        data: What it is calibrated and judged on.
        metric: The headline metric.
    """

    parameters: int
    family: str
    data: str
    metric: str


cards: dict[str, Card] = {
    "minilm": Card(22_565_376, "transformer encoder", "sentences rated by people, Lee corpus", "mean_cosine"),
    "mlp": Card(17_226, "multilayer perceptron", "handwritten digits", "accuracy"),
    "convnet": Card(24_058, "convolutional network", "handwritten digits", "accuracy"),
    "lstm": Card(52_874, "recurrent network", "handwritten digits", "accuracy"),
    "vae": Card(19_792, "autoencoder", "handwritten digits", "mse"),
    "resnet18": Card(11_689_512, "convolutional network", "synthetic images, random weights", "sqnr"),
    "mobilenet_v2": Card(3_504_872, "convolutional network", "synthetic images, random weights", "sqnr"),
    "vit_tiny": Card(5_717_416, "transformer encoder", "synthetic images, random weights", "sqnr"),
    "unet": Card(7_763_074, "encoder-decoder", "synthetic images, random weights", "sqnr"),
    "r3d18": Card(33_371_472, "3-D convolutional network", "synthetic clips, random weights", "sqnr"),
    "fashion_cnn": Card(246_394, "convolutional network", "FashionMNIST", "accuracy"),
    "fashion_vit": Card(692_842, "transformer encoder", "FashionMNIST", "accuracy"),
    "letters": Card(31_322, "multilayer perceptron", "LetterRecognition", "accuracy"),
    "minilm_sentiment": Card(22_566_146, "transformer encoder", "film snippets rated by people", "accuracy"),
}


def get(name: str) -> Callable[..., Task]:
    """The factory of a task by its name.

    Raises:
        UnknownName: Nobody registered it; the message lists those that are known.
    """
    return models[name]


def load(model: str) -> Task:
    """The task that a MODEL of the command line stands for, as far as it is not a file of its own format.

    Args:
        model: A name of `models`, `file.py:function`, a local transformers directory, or `owner/name` on the hub.

    Raises:
        UnknownName: It is none of these.
        ModelError, UntrustedFile: What was found cannot be loaded.
    """
    if model in models:
        return models[model]()
    if ".py:" in model:
        return import_module("planish.models.factory").from_file(model)
    if Path(model).is_dir() or (model.count("/") == 1 and all(model.split("/")) and not Path(model).suffix):
        return import_module("planish.models.pretrained").load(model)
    raise UnknownName("model", model, models, "or a transformers directory, a hub id, or file.py:function")
