"""What several test modules need: optional libraries and tools, asked for by name."""

from __future__ import annotations

import importlib
import os
import shutil
from importlib import metadata
from types import ModuleType
from typing import NoReturn

import pytest


def require(module: str) -> ModuleType:
    """The imported module; where it is absent the test is skipped for a user and fails in CI (`PLANISH_REQUIRE=1`)."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        _absent(f"{module} is not installed ({error})")


def require_package(name: str) -> None:
    """As `require`, for a distribution that only a child process will import."""
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        _absent(f"{name} is not installed")


def require_tool(*names: str) -> str:
    """The path of the first program found; absence is treated as in `require`."""
    found = next(filter(None, map(shutil.which, names)), None)
    return found or _absent(f"none of {', '.join(names)} is on the PATH")


def _absent(reason: str) -> NoReturn:
    if os.environ.get("PLANISH_REQUIRE"):
        pytest.fail(reason)
    pytest.skip(reason)
