"""What an import costs: nothing that was not asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import planish

HEAVY = ("torch", "numpy", "transformers", "onnx", "onnxruntime", "openvino", "plotly", "jinja2", "scipy", "sklearn")


@pytest.mark.parametrize(
    "statement", ["import planish", "from planish.cli import app", "from planish.models import cards"]
)
def test_no_heavy_library_is_imported(statement: str) -> None:
    code = f"import sys; {statement}; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("name", [name for name in planish.__all__ if name != "__version__"])
def test_every_public_name_exists(name: str) -> None:
    assert getattr(planish, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonesuch"):
        _ = planish.nonesuch  # type: ignore[attr-defined]


def test_the_version_is_the_package_s() -> None:
    from importlib.metadata import version

    assert version("planish") == planish.__version__
