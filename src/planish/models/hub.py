"""The one door to transformers: imported late, quiet, and off the network unless a hub id is asked for."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from types import ModuleType

from planish.errors import MissingExtra


def transformers() -> ModuleType:
    """The transformers library.

    Raises:
        MissingExtra: It is not installed.
    """
    try:
        with _hushed():
            import transformers
    except ImportError as error:
        raise MissingExtra("transformers", "zoo") from error
    return transformers


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """No chatter of torchao about kernels for other machines, nor of the hub about each attempt; errors are raised."""
    loggers = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and load reports of transformers within the block; errors still show."""
    chatter = transformers().utils.logging
    level, bars = chatter.get_verbosity(), chatter.is_progress_bar_enabled()
    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
    try:
        with _hushed():
            yield
    finally:
        chatter.set_verbosity(level)
        if bars:
            chatter.enable_progress_bar()


def offline() -> bool:
    """Whether the user has switched the hub off."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
