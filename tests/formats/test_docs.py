"""The page about formats: its examples run, and its tables are complete."""

from __future__ import annotations

import re
from pathlib import Path

from planish.formats import FORMATS, get
from planish.formats.text import _OPTIONS

PAGE = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()


def test_the_examples_run() -> None:
    space: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, space)


def test_every_name_is_listed_and_every_listed_name_exists() -> None:
    table = PAGE.split("## Names")[1].split("`planish.formats.facts")[0]
    listed = set(re.findall(r"`([a-z0-9_]+)`", table))
    between = {f"{kind}{bits}" for kind in ("int", "uint") for bits in range(3, 16)}  # int2 … int16
    assert listed | between == set(FORMATS)


def test_every_text_can_be_read_and_every_option_is_told() -> None:
    table = PAGE.split("| text | means |")[1].split("## Names")[0]
    for text in re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE):
        assert str(get(text)) == text
    grammar = PAGE.split("option  :=")[1].split("```")[0]
    assert set(re.findall(r"[a-z\-]+", grammar)) == set(_OPTIONS)
