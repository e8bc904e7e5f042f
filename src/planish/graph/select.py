"""Saying which nodes are meant: `ops.linear & ~path("pooler.*")`.

A selector is a value with a text form that parses back, so that it can stand in a recipe and on the command line.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import torch

from planish.errors import OptionError, UnknownName
from planish.graph.ops import FAMILIES

if TYPE_CHECKING:
    from planish.graph.node import Node


class Selector:
    """What nodes to take; combine with `&`, `|`, `-` (without) and `~` (not)."""

    def matches(self, node: Node) -> bool:
        """Whether the node is meant."""
        raise TypeError(f"{type(self).__name__} must say what it matches")

    def within(self, nodes: Iterable[Node]) -> list[Node]:
        """The nodes that are meant, in their order."""
        return [node for node in nodes if self.matches(node)]

    def __and__(self, other: Selector) -> Selector:
        return Both(self, other)

    def __or__(self, other: Selector) -> Selector:
        return Either(self, other)

    def __sub__(self, other: Selector) -> Selector:
        return Both(self, Not(other))

    def __invert__(self) -> Selector:
        return Not(self)


@dataclass(frozen=True)
class Path(Selector):
    """Nodes whose module path, or whose name, fits a glob; `*` also crosses dots."""

    glob: str

    def matches(self, node: Node) -> bool:
        """Whether the node is meant."""
        return fnmatchcase(node.path, self.glob) or fnmatchcase(node.name, self.glob)

    def __str__(self) -> str:
        return f"path({self.glob!r})"


@dataclass(frozen=True)
class Op(Selector):
    """Operations of a family ("linear", "conv", "attention"…) or with one base name."""

    name: str

    def matches(self, node: Node) -> bool:
        """Whether the node is meant."""
        return node.kind == "call" and (self.name == "any" or node.op in FAMILIES.get(self.name, {self.name}))

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Dtype(Selector):
    """Operations whose output has the dtype."""

    dtype: torch.dtype

    def matches(self, node: Node) -> bool:
        """Whether the node is meant."""
        return node.dtype == self.dtype

    def __str__(self) -> str:
        return f"dtype('{str(self.dtype).removeprefix('torch.')}')"


@dataclass(frozen=True)
class Both(Selector):
    """Nodes that both selectors take."""

    left: Selector
    right: Selector

    def matches(self, node: Node) -> bool:
        """Whether the node is meant."""
        return self.left.matches(node) and self.right.matches(node)

    def __str__(self) -> str:
        return f"{_grouped(self.left, Either)} & {_grouped(self.right, Both, Either)}"


@dataclass(frozen=True)
class Either(Selector):
    """Nodes that at least one of the selectors takes."""

    left: Selector
    right: Selector

    def matches(self, node: Node) -> bool:
        """Whether the node is meant."""
        return self.left.matches(node) or self.right.matches(node)

    def __str__(self) -> str:
        return f"{self.left} | {_grouped(self.right, Either)}"


@dataclass(frozen=True)
class Not(Selector):
    """Nodes that the selector leaves."""

    inner: Selector

    def matches(self, node: Node) -> bool:
        """Whether the node is meant."""
        return not self.inner.matches(node)

    def __str__(self) -> str:
        return f"~{_grouped(self.inner, Both, Either)}"


def _grouped(selector: Selector, *looser: type[Selector]) -> str:
    return f"({selector})" if isinstance(selector, looser) else str(selector)


class _Ops:
    """`ops.linear`, `ops.conv`, `ops.attention`…; any operator's base name works: `ops.gelu`."""

    def __getattr__(self, name: str) -> Op:
        if name.startswith("__"):
            raise AttributeError(name)
        return Op(name)

    def __dir__(self) -> list[str]:
        return sorted([*FAMILIES, "any"])


ops = _Ops()


def path(glob: str) -> Path:
    """Nodes whose module path, or whose name, fits the glob: `path("encoder.layer.*.output")`."""
    return Path(glob)


def dtype(kind: torch.dtype | str) -> Dtype:
    """Operations whose output has the dtype: `dtype(torch.float32)` or `dtype("float32")`."""
    found = getattr(torch, kind, None) if isinstance(kind, str) else kind
    if not isinstance(found, torch.dtype):
        raise OptionError(f"unknown dtype {kind!r}", hint="for example dtype('float32')")
    return Dtype(found)


def parse_selector(text: str | Selector) -> Selector:
    """A selector from its text form; a selector is returned as it is.

    The text is read as a tree of names, calls of `path` and `dtype` with one literal, and the four operators; a bare
    glob with a star ("encoder.*") is a path. Nothing in it is evaluated.

    Raises:
        OptionError: The text is not of that form.
    """
    if isinstance(text, Selector):
        return text
    if re.fullmatch(r"[\w.]*\*[\w.*?]*", text):
        return Path(text)
    try:
        return _build(ast.parse(text.strip(), mode="eval").body, text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _unreadable(text) from error


def _build(tree: ast.expr, text: str) -> Selector:
    match tree:
        case ast.Name(id=name):
            return Op(_known_op(name))
        case ast.Attribute(value=ast.Name(id="ops"), attr=name):
            return Op(_known_op(name))
        case ast.Call(func=ast.Name(id="path"), args=[ast.Constant(value=str(glob))], keywords=[]):
            return Path(glob)
        case ast.Call(func=ast.Name(id="dtype"), args=[ast.Constant(value=str(kind))], keywords=[]):
            return dtype(kind)
        case ast.UnaryOp(op=ast.Invert(), operand=inner):
            return Not(_build(inner, text))
        case ast.BinOp(left=left, op=ast.BitAnd(), right=right):
            return Both(_build(left, text), _build(right, text))
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return Either(_build(left, text), _build(right, text))
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return Both(_build(left, text), Not(_build(right, text)))
    raise _unreadable(text)


def _known_op(name: str) -> str:
    if name == "any" or name in FAMILIES or hasattr(torch.ops.aten, name):
        return name
    raise UnknownName("operation", name, [*FAMILIES, "any"], where="selector")


def _unreadable(text: str) -> OptionError:
    return OptionError(f"cannot read the selector {text!r}", hint="for example: linear & ~path('pooler.*')")
