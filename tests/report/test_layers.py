from __future__ import annotations

from pathlib import Path

import pytest

from planish.record import Measurement
from planish.report.layers import SUMMED, layers, tree
from planish.report.rows import Rows
from tests.report import sample


def _row(
    name: str, where: str, node: str = "", subject: str = "", value: float = 1.0, **details: object
) -> Measurement:
    details = {"node": node, **details} if node else details
    return Measurement(name, value, "1", "measured", subject=subject, where=where, details=details)


def test_no_row_of_a_layer_is_lost(tmp_path: Path) -> None:
    rows = Rows(sample.write(tmp_path).measurements())
    found = layers(rows)
    kept = {row.index for layer in found for row in layer.rows.values()}
    assert kept == {row.index for row in rows if row.m.where}


def test_a_branch_of_the_tree_is_the_sum_of_its_children(tmp_path: Path) -> None:
    modules = tree(layers(Rows(sample.write(tmp_path).measurements())), "net")
    ids = {module.id for module in modules}
    assert len(ids) == len(modules)
    assert modules[0].id == ""
    for module in modules:
        children = [m for m in modules if m.parent == module.id and m.id]
        if children:
            for key in SUMMED:
                assert module.sums[key] == pytest.approx(sum(child.sums[key] for child in children))
    assert all(module.parent in ids for module in modules)


def test_chains_of_single_modules_are_one_node(tmp_path: Path) -> None:
    labels = {m.id: m.label for m in tree(layers(Rows(sample.write(tmp_path).measurements())), "net")}
    assert "encoder" not in labels
    assert labels["encoder.layer"] == "encoder.layer"
    assert labels["encoder.layer.3"] == "layer 3"


def test_two_operations_of_one_module_are_two_layers() -> None:
    found = layers(Rows([_row("node_time", "a.b", "x", op="add"), _row("node_time", "a.b", "y", op="mul")]))
    assert [(layer.id, layer.op) for layer in found] == [("a.b:x", "add"), ("a.b:y", "mul")]


def test_the_only_operation_of_the_model_itself_is_not_its_root() -> None:
    """As in ResNet-18, which only flattens: two of one id, and the browser drew no tree at all."""
    found = layers(Rows([_row("node_time", "a", "x", op="conv2d"), _row("node_time", "", "flatten", op="flatten")]))
    modules = tree(found, "net")
    assert [(m.id, m.parent, m.label) for m in modules] == [
        ("", "", "net"),
        ("a", "", "a"),
        (":flatten", "", "flatten"),
    ]
    assert modules[0].sums["node_time original"] == 2.0


def test_a_row_without_its_operation_goes_to_the_heaviest() -> None:
    rows = [
        _row("node_time", "a", "x"),
        _row("node_time", "a", "y"),
        _row("weight_bytes", "a", "y", value=8),
        _row("sensitivity", "a", format="int8"),
        _row("node_time", "a", "fused_1", subject="chosen"),
    ]
    found = {layer.id: set(layer.rows) for layer in layers(Rows(rows))}
    assert found == {
        "a:x": {"node_time original"},
        "a:y": {"node_time original", "weight_bytes original", "sensitivity int8", "node_time chosen"},
    }


def test_a_repeated_measurement_replaces_the_earlier_one() -> None:
    (layer,) = layers(Rows([_row("node_time", "a", "x", value=1), _row("node_time", "a", "x", value=2)]))
    assert layer.rows["node_time original"].m.value == 2
    assert layer.rows["node_time original"].index == 1
