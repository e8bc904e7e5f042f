"""Inputs and outputs that are more than tensors: what Hugging Face models pass around, as pytrees.

transformers registers its `ModelOutput`s itself, but not all its key-value caches. A cache is flattened to the tensors
of its layers; the rest of a layer (plain values) is part of the structure. Nothing is imported that the user's model
has not imported already, except when a saved graph names a structure of an installed library.
"""

from __future__ import annotations

import json
import sys
from functools import lru_cache
from importlib import import_module
from typing import Any

import torch
from torch.fx import _pytree as fx_pytree
from torch.utils import _pytree as pytree

from planish.errors import UntrustedFile

_CACHES = "transformers.cache_utils"
_LIBRARIES = ("transformers.", "diffusers.", "torch_geometric.")


def register_structures() -> None:
    """Teach torch's pytree the caches of transformers, if the user's program has loaded it."""
    module = sys.modules.get(_CACHES)
    if module is None:
        return
    for name, flatten, unflatten in (
        ("DynamicCache", _flatten_cache, _unflatten_cache),
        ("EncoderDecoderCache", _flatten_pair, _unflatten_pair),
    ):
        kind = getattr(module, name)
        if kind not in pytree.SUPPORTED_NODES:
            pytree.register_pytree_node(
                kind,
                flatten,
                unflatten,
                serialized_type_name=f"{_CACHES}.{name}",
                flatten_with_keys_fn=lambda cache, flatten=flatten: _with_keys(*flatten(cache)),
            )
            fx_pytree.register_pytree_flatten_spec(kind, lambda cache, spec, flatten=flatten: flatten(cache)[0])


def _with_keys(children: list[Any], context: Any) -> tuple[list[Any], Any]:
    return [(pytree.SequenceKey(index), child) for index, child in enumerate(children)], context


def _flatten_cache(cache: Any) -> tuple[list[Any], list[Any]]:
    children: list[Any] = []
    context: list[Any] = []
    for layer in cache.layers:
        tensors = {k: v for k, v in vars(layer).items() if isinstance(v, torch.Tensor)}
        plain = {k: v for k, v in vars(layer).items() if isinstance(v, bool | int | float | str | None)}
        children += tensors.values()
        context.append([type(layer).__name__, list(tensors), plain])
    return children, context


def _unflatten_cache(children: Any, context: list[Any]) -> Any:
    module = sys.modules[_CACHES]
    cache, values = module.DynamicCache(), iter(children)
    cache.layers = []
    for kind, names, plain in context:
        window = plain.get("sliding_window")
        layer = getattr(module, kind)(window) if window else getattr(module, kind)()
        for name, value in [*plain.items(), *((name, next(values)) for name in names)]:
            setattr(layer, name, value)
        held = next((getattr(layer, name) for name in names), None)
        if isinstance(held, torch.Tensor):
            layer.dtype, layer.device = held.dtype, held.device
        cache.layers.append(layer)
    return cache


def _flatten_pair(cache: Any) -> tuple[list[Any], list[Any]]:
    return [cache.self_attention_cache, cache.cross_attention_cache], []


def _unflatten_pair(children: Any, _context: list[Any]) -> Any:
    return sys.modules[_CACHES].EncoderDecoderCache(*children)


def dump_spec(spec: pytree.TreeSpec) -> str:
    """A structure as JSON text."""
    return pytree.treespec_dumps(spec)


@lru_cache(maxsize=256)  # an artifact asks on every call
def load_spec(text: str, where: str) -> pytree.TreeSpec:
    """The structure that `dump_spec` wrote. Its types are looked up among registered ones, never executed.

    Raises:
        UntrustedFile: The text names a type that is not registered, or is not a structure.
    """
    if "__enum__" in text:  # torch would import whatever module an enum names
        raise UntrustedFile("the graph's structure holds an enum, which is not on the allow-list", where)
    for name in _type_names(json.loads(text)[1]):
        module = name.rpartition(".")[0]
        if module.startswith(_LIBRARIES) and module.replace(".", "").replace("_", "").isalnum():
            try:
                import_module(module)
            except ImportError as error:
                raise UntrustedFile(
                    f"the graph's inputs or outputs are of type {name}, which is not installed",
                    where,
                    f"pip install {module.partition('.')[0]}",
                ) from error
    register_structures()
    try:
        return pytree.treespec_loads(text)
    except (NotImplementedError, ValueError, KeyError, TypeError) as error:
        raise UntrustedFile(f"unknown input or output structure ({error})", where) from error


def _type_names(tree: Any) -> set[str]:
    if not isinstance(tree, dict):
        return set()
    names = {tree["type"]} if isinstance(tree.get("type"), str) else set()
    return names.union(*map(_type_names, tree.get("children_spec", [])))
