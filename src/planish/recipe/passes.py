"""The table of passes, and what a file calls them."""

from __future__ import annotations

from planish.errors import OptionError
from planish.graph import Pass
from planish.holes import Template
from planish.registry import Registry

passes = Registry(
    "pass",
    {
        "allocate": "planish.compress:Allocate",
        "attention": "planish.compress:Attention",
        "cluster": "planish.compress:Cluster",
        "depth": "planish.compress:Depth",
        "heads": "planish.compress:Heads",
        "kernel-size": "planish.compress:KernelSize",
        "replace": "planish.compress:Replace",
        "width": "planish.compress:Width",
        "distill": "planish.training:Distill",
        "fold-batch-norm": "planish.rewrite:FoldBatchNorm",
        "fold-constants": "planish.rewrite:FoldConstants",
        "canonicalize": "planish.rewrite:Canonicalize",
        "fit": "planish.training:Fit",
        "gradual": "planish.training:Gradual",
        "early-exit": "planish.compress:EarlyExit",
        "merge-tokens": "planish.compress:MergeTokens",
        "prepare": "planish.targets.fpga.prepare:Prepare",
        "permute": "planish.compress:Permute",
        "prune": "planish.compress:Prune",
        "prune-structured": "planish.compress:PruneStructured",
        "prune-tokens": "planish.compress:PruneTokens",
        "adapt": "planish.compress:Adapt",
        "correct": "planish.compress:Correct",
        "factorize": "planish.compress:Factorize",
        "merge": "planish.rewrite:Merge",
        "split-low-rank": "planish.rewrite:SplitLowRank",
        "quantize": "planish.compress:Quantize",
        "balance": "planish.compress:Balance",
        "concentrate": "planish.compress:Concentrate",
        "rotate": "planish.compress:Rotate",
        "smooth": "planish.compress:Smooth",
    },
)


def name_of(step: Pass | Template) -> str:
    """The pass's registered name, or its class's."""
    kind = step.kind if isinstance(step, Template) else type(step)
    owner = f"{kind.__module__}:{kind.__qualname__}"
    for name, target in passes.table.items():
        module, _, attribute = target.partition(":")
        if target == owner or (attribute == kind.__qualname__ and owner.startswith(f"{module}.")):
            return name
    return kind.__name__


def registered_name(step: Pass | Template) -> str:
    """The name to write into a file.

    Raises:
        OptionError: Nobody registered the pass, so a file could not be read back.
    """
    name = name_of(step)
    if name not in passes:
        raise OptionError(
            f"the pass {name} is not registered, so it has no name in a file",
            "recipe",
            'entry point group "planish.pass"',
        )
    return name
