"""Errors that name what is known."""

from __future__ import annotations

import pytest

from planish.errors import UnknownName
from planish.formats import FORMATS, get


def test_few_names_are_all_told():
    error = UnknownName("engine", "openvine", ["openvino", "onnxruntime", "inductor"])
    assert error.hint == "did you mean 'openvino'? known: inductor, onnxruntime, openvino"
    assert UnknownName("engine", "x", []).hint == "known: none"


def test_of_many_names_the_nearest_are_told_and_the_command_that_lists_all():
    with pytest.raises(UnknownName) as caught:
        get("mxpf4")
    hint = caught.value.hint
    assert hint.startswith("did you mean 'mxfp4'? ")
    told = hint.split(": ")[1].split("; ")[0].split(", ")
    assert len(told) == UnknownName.NEAREST
    assert {"mxfp4", "mxfp6", "mxfp8"} <= set(told) <= set(FORMATS)
    assert hint.endswith("; all: planish formats")


def test_no_command_is_told_where_there_is_none():
    hint = UnknownName("tensor", "weight", [f"layer.{place}.weight" for place in range(40)]).hint
    assert "nearest of 40: " in hint
    assert "planish" not in hint
