"""Pretrained transformers: a local directory or a hub id becomes a Task.

Only safetensors are read and no code that comes with a model is ever run: the classes are those of the installed
transformers library.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from planish.errors import MissingExtra, ModelError, UntrustedFile
from planish.models.data import Batches
from planish.models.hub import offline, quiet, transformers
from planish.models.task import Task

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_TEXT = {0: "batch", 1: "sequence"}
UNSAFE = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")


def load(source: str, batch: int = 2, sequence: int = 32, cache: bool = False) -> Task:
    """A pretrained model with example inputs that fit its architecture, and random tokens or pixels as data.

    Args:
        source: A directory written by `save_pretrained`, or `owner/name` on the hub.
        batch: Of the example inputs.
        sequence: Tokens of the example inputs.
        cache: For a causal language model: the task is one step of decoding, `sequence` tokens after the first, with
            the cache as input and output. It has no data.

    Raises:
        ModelError: There is no such model, or it cannot be read; says which file.
        UntrustedFile: The weights exist only as pickles, or the model wants to run its own code.
        MissingExtra: transformers is not installed.
    """
    local = Path(source).is_dir()
    if local:
        _check_folder(Path(source))
    model = _model(source, local)
    model.config.use_cache = cache
    if cache:
        return _decoding(source, model, batch, sequence)
    inputs = example_inputs(model, batch, sequence)
    draws = [example_inputs(model, batch, sequence, seed) for seed in range(1, 25)]
    described = "random inputs (no real data: give --data)"
    calibration, evaluation, validation = (
        Batches([((), draw) for draw in draws[start : start + 8]], described) for start in (0, 8, 16)
    )
    return Task(
        model=model,
        example_inputs=inputs,
        calibration=calibration,
        evaluation=evaluation,
        validation=validation,
        metric=("mean_cosine", "sqnr"),
        name=Path(source).name,
        dynamic={name: _TEXT if name in ("input_ids", "attention_mask") else {0: "batch"} for name in inputs},
        family=f"{model.config.model_type} (transformers)",
        description=f"weights of {source}; random inputs",
    )


def _decoding(source: str, model: PreTrainedModel, batch: int, past: int) -> Task:
    if not model.can_generate() or model.config.is_encoder_decoder:
        raise ModelError(f"{type(model).__name__} does not generate from a cache", source, "leave out cache=True")
    return Task(
        model=model,
        example_inputs=decode_inputs(model, batch, past),
        metric="mean_cosine",
        name=Path(source).name,
        dynamic={"input_ids": _TEXT, "past_key_values": {0: "batch", 2: "past"}},
        family=f"{model.config.model_type} (transformers)",
        description=f"weights of {source}; one step of decoding",
    )


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ModelError("the directory has no config.json", str(folder), "a directory written by save_pretrained()")
    if any(folder.glob("*.safetensors")):
        return
    unsafe = sorted(file.name for file in folder.iterdir() if file.suffix in UNSAFE)
    if unsafe:
        raise UntrustedFile(
            f"the weights are only in {', '.join(unsafe)}, and reading such a file can run code",
            str(folder),
            "load it where you trust it, then: model.save_pretrained(folder, safe_serialization=True)",
        )
    raise ModelError("the directory has no weights (*.safetensors)", str(folder), "model.save_pretrained(folder)")


def _model(source: str, local: bool) -> PreTrainedModel:
    library = transformers()
    options = {"trust_remote_code": False, "local_files_only": local or offline()}
    with quiet():
        config: PretrainedConfig = _read(source, local, lambda: library.AutoConfig.from_pretrained(source, **options))
        named = next(iter(config.architectures or ()), None)
        owner = library.AutoModel if named is None else getattr(library, named, None)
        if owner is None:
            raise UntrustedFile(
                f"{named} is not a class of transformers {library.__version__}: the model brings its own code",
                source,
                "wrap it yourself, and name the file: file.py:function",
            )
        del options["trust_remote_code"]  # the class is chosen already, and is transformers' own
        try:
            loaded = _read(
                source,
                local,
                lambda: owner.from_pretrained(source, dtype=torch.float32, use_safetensors=True, **options),
            )
        except ImportError as error:
            raise MissingExtra(str(error.name or error).splitlines()[0], "zoo", source) from error
    return loaded.eval()


def _read(source: str, local: bool, reading: Callable[[], Any]) -> Any:
    """Run a reader of transformers and say in one sentence what stopped it."""
    from safetensors import SafetensorError

    try:
        return reading()
    except SafetensorError as error:
        raise ModelError(f"a weight file is damaged: {error}", source, "download or save it again") from error
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if "trust_remote_code" in str(error):
            raise UntrustedFile(
                "the model wants to run its own code", source, "wrap it yourself: file.py:function"
            ) from error
        if not local and "safetensors" in str(error):
            raise UntrustedFile(
                f"the hub has no safetensors of it: {said}", source, "choose a model that has"
            ) from error
        if not local and isinstance(error, OSError):
            hint = (
                "unset HF_HUB_OFFLINE" if offline() else "check the spelling and the network, or name a local directory"
            )
            raise ModelError(f"the hub gave no such model: {said}", source, hint) from error
        raise ModelError(
            f"transformers cannot read it: {said}", source, "a directory written by save_pretrained()"
        ) from error


def example_inputs(model: PreTrainedModel, batch: int = 2, sequence: int = 32, seed: int = 0) -> dict[str, Tensor]:
    """Random keyword arguments of the right names and shapes, by what the model's forward takes.

    Text is `(batch, sequence)` int64, images `(batch, channels, side, side)`, sound `(batch, bands, frames)`.

    Raises:
        ModelError: The model takes neither text, images nor sound.
    """
    takes, config = inspect.signature(model.forward).parameters, model.config
    text, vision = getattr(config, "text_config", config), getattr(config, "vision_config", config)
    generator = torch.Generator().manual_seed(seed)
    inputs: dict[str, Tensor] = {}
    if "input_ids" in takes and getattr(text, "vocab_size", 0):
        inputs["input_ids"] = torch.randint(text.vocab_size, (batch, sequence), generator=generator)
        if "attention_mask" in takes:
            inputs["attention_mask"] = torch.ones(batch, sequence, dtype=torch.int64)
    if "pixel_values" in takes and getattr(vision, "image_size", 0):
        side = vision.image_size
        sides = tuple(side) if isinstance(side, (list, tuple)) else (side, side)
        shape = (batch, getattr(vision, "num_channels", 3), *sides)
        inputs["pixel_values"] = torch.randn(shape, generator=generator)
    if "input_features" in takes and "input_ids" not in inputs:
        frames = 2 * config.max_source_positions
        inputs["input_features"] = torch.randn((batch, config.num_mel_bins, frames), generator=generator)
    if not inputs:
        raise ModelError(
            f"{type(model).__name__} takes neither text, images nor sound",
            hint="choose its inputs yourself: file.py:function that returns planish.Task(model, example_inputs)",
        )
    if config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.randint(text.vocab_size, (batch, 8), generator=generator)
    return inputs


def decode_inputs(model: PreTrainedModel, batch: int = 2, past: int = 16) -> dict[str, Any]:
    """Keyword arguments of one decoding step of a causal language model: a new token, and the cache of `past` others.

    `input_ids` is `(batch, 1)`; `past_key_values` is transformers' own cache, filled by a real pass over random tokens;
    each of its layers holds keys and values of `(batch, heads, past, features)`. A call appends to its cache.
    """
    prompt = example_inputs(model, batch, past)
    with torch.no_grad():
        output = model(input_ids=prompt["input_ids"], use_cache=True)
    return {"input_ids": prompt["input_ids"][:, :1], "past_key_values": output.past_key_values}
