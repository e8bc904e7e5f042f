"""Carries that nobody reads cost nothing."""

from __future__ import annotations

from typing import Any

from planish.targets.fpga.toolchain.carries import trim


def cell(first: str, **wires: str | int) -> dict[str, Any]:
    """A slice of a carry chain."""
    pins = {f"{pin}{half}": "1" for half in "01" for pin in "ABCD"} | {"CIN": "0", "S0": 2, "S1": 3, "COUT": 4} | wires
    return {
        "type": "CCU2C",
        "parameters": {"INIT0": first},
        "connections": {pin: [bit] for pin, bit in pins.items()},
        "port_directions": {pin: "output" if pin in ("S0", "S1", "COUT") else "input" for pin in pins},
    }


def trimmed(*cells: dict[str, Any], ports: tuple[int, ...] = ()) -> list[dict[str, list[str | int]]]:
    """The connections of cells after it."""
    netlist = {"modules": {"top": {"ports": {"y": {"bits": list(ports)}}, "cells": dict(enumerate(cells))}}}
    trim(netlist)
    return [each["connections"] for each in cells]


def test_a_last_carry_that_nobody_reads_is_taken_off() -> None:
    first, last = trimmed(cell("0110" * 4), cell("0110" * 4, CIN=4, S0=5, S1=6, COUT=7), ports=(2, 3, 5, 6))
    assert (first["COUT"], last["COUT"]) == ([4], ["x"])
    assert first["CIN"] == ["0"]  # the first place adds it


def test_a_last_carry_that_goes_out_stays() -> None:
    (only,) = trimmed(cell("0110" * 4), ports=(4,))
    assert only["COUT"] == [4]


def test_a_first_place_that_makes_only_a_carry_needs_none() -> None:
    assert trimmed(cell("0000000000001010"))[0]["CIN"] == ["x"]
    assert trimmed(cell("0000000000001010"), ports=(2,))[0]["CIN"] == ["0"]
    assert trimmed(cell("0000000000001010", C0="0"))[0]["CIN"] == ["0"]
