"""The layers of a model, each with its rows, and the module tree above them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from planish.report.rows import Row, Rows

PER_LAYER = {
    *("node_time", "roofline_time", "macs", "flops", "weight_bytes", "activation_bytes", "intensity"),
    *("weight_bits", "activation_bits", "sensitivity"),
}
SUMMED = ("node_time original", "node_time chosen", "weight_bytes original", "macs original", "roofline_time original")


@dataclass(frozen=True)
class Layer:
    """One operation of the model.

    Attributes:
        id: Its module path; where one module runs several operations, and for those of the model itself, `path:node`.
        path: Module path in the user's model.
        label: The path below its group.
        group: The block it belongs to (`"encoder.layer.3"`), or its first component.
        op: Operation ("linear").
        type: The module's class ("Linear"); may be empty.
        rows: Its measurements, under keys such as `"node_time original"` and `"sensitivity int4"`.
    """

    id: str
    path: str
    label: str
    group: str
    op: str
    type: str
    rows: Mapping[str, Row]

    def value(self, key: str) -> float:
        """The number under `key`, or 0 where there is none that can be added up."""
        row = self.rows.get(key)
        return row.m.value if row and math.isfinite(row.m.value) else 0.0


@dataclass(frozen=True)
class Module:
    """A node of the module tree: a layer, or the sum of what is below it."""

    id: str
    parent: str
    label: str
    sums: Mapping[str, float]
    layers: tuple[str, ...]


def key(row: Row) -> str:
    """How a layer's row is found: its name and whose number it is (sensitivity: in which format)."""
    return f"{row.m.name} {row.detail('format') if row.m.name == 'sensitivity' else row.m.subject or 'original'}"


def layers(rows: Rows) -> list[Layer]:
    """Every layer that has a measurement, in the order in which they were first measured.

    A module that runs several operations gives one layer for each. A row that does not name its operation, or
    names one that only the engine knows, goes to the module's heaviest layer, or stands for the module itself.
    """
    table: dict[str, dict[str, _Draft]] = {}
    per_layer = [row for row in rows if row.m.name in PER_LAYER and (row.m.where or row.detail("node"))]
    for row in sorted(per_layer, key=lambda row: (row.m.subject == "chosen", row.m.name == "sensitivity")):
        drafts = table.setdefault(row.m.where, {})
        node = row.detail("node")
        late = row.m.subject == "chosen" or row.m.name == "sensitivity"
        if node not in drafts and drafts and (late or not node):
            node = _heaviest(drafts, key(row)) or node
        draft = drafts.setdefault(node, _Draft())
        draft.rows[key(row)] = row
        draft.op, draft.type = draft.op or row.detail("op"), draft.type or row.detail("type")
    return [
        _layer(path, node if len(drafts) > 1 or not path else "", draft)
        for path, drafts in table.items()
        for node, draft in drafts.items()
    ]


def tree(found: Iterable[Layer], root: str) -> list[Module]:
    """The module tree, root first (its id is empty); chains of modules with one child are written as one."""
    below: dict[str, list[Layer]] = {"": []}
    found = list(found)
    for layer in found:
        parts = layer.path.split(".") if layer.path else []
        for depth in range(len(parts) + 1):
            below.setdefault(".".join(parts[:depth]), []).append(layer)
    leaves = {layer.id for layer in found}
    kept = [path for path in below if not path or (path not in leaves and _branches(path, below[path]))]
    modules = [
        _module(path, kept, root, below[path]) for path in sorted(kept, key=lambda path: (path != "", path.count(".")))
    ]
    for layer in found:
        parent = _parent(layer.id, kept, own=layer.path)
        modules.append(Module(layer.id, parent, _below(layer.id, parent), _sums([layer]), (layer.id,)))
    return modules


@dataclass
class _Draft:
    rows: dict[str, Row] = field(default_factory=dict)
    op: str = ""
    type: str = ""


def _heaviest(drafts: Mapping[str, _Draft], wanted: str) -> str:
    """The operation with the most weights among those that lack the wanted row; empty where none lacks it."""
    free = {node: draft.rows.get("weight_bytes original") for node, draft in drafts.items() if wanted not in draft.rows}
    return max(free, key=lambda node: row.m.value if (row := free[node]) else 0.0, default="")


def _layer(path: str, node: str, draft: _Draft) -> Layer:
    parts = path.split(".") if path else []
    numbered = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    cut = 1 if numbered is None else numbered + 1
    label = ".".join(parts[cut:]) or (parts[-1] if parts else "")
    label = f"{label}:{node}" if node and label else node or label
    return Layer(
        f"{path}:{node}" if node else path, path, label, ".".join(parts[:cut]), draft.op, draft.type, dict(draft.rows)
    )


def _branches(path: str, layers: Iterable[Layer]) -> bool:
    """Whether something is decided here: the layers below do not all lie below the same child."""
    heads = {layer.id if layer.path == path else layer.id[len(path) + 1 :].split(".")[0] for layer in layers}
    return len(heads) > 1


def _parent(name: str, kept: list[str], own: str) -> str:
    above = [path for path in kept if path != name and (path == own or name.startswith(f"{path}."))]
    return max(above, key=len, default="")


def _below(name: str, parent: str) -> str:
    """The name below its parent; a bare number takes its parent's last word with it ("layer 3")."""
    if name.startswith(f"{parent}:"):
        return name[len(parent) + 1 :]
    short = name[len(parent) + 1 :] if parent else name
    return f"{parent.rpartition('.')[2]} {short}" if short.isdigit() and parent else short


def _module(path: str, kept: list[str], root: str, below: list[Layer]) -> Module:
    parent = _parent(path, kept, own="")
    label = _below(path, parent) if path else root
    return Module(path, parent, label, _sums(below), tuple(layer.id for layer in below))


def _sums(below: Iterable[Layer]) -> dict[str, float]:
    below = list(below)
    return {name: sum(layer.value(name) for layer in below) for name in SUMMED}
