"""Zero-cost proxies: how good a network will be, guessed before it is trained. More is better.

Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS" (arXiv 2101.08134), compare them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from planish.analysis import analyze
from planish.automl.supernet.network import Item, Loss
from planish.graph import Graph
from planish.metrics import read_tensor
from planish.registry import Registry

Proxy = Callable[[Graph, Item, Loss], float]
"""`(graph, item of data, loss) -> score`; the graph is not changed."""
_HERE = "planish.automl.supernet.proxies"
proxies = Registry(
    "proxy",
    {
        "grad-norm": f"{_HERE}:grad_norm",
        "jacobian": f"{_HERE}:jacobian",
        "macs": f"{_HERE}:macs",
        "params": f"{_HERE}:params",
        "synflow": f"{_HERE}:synflow",
    },
)


def params(graph: Graph, item: Item, loss: Loss) -> float:
    """Parameters, in powers of e."""
    return math.log(max(float(analyze(graph).total.parameters), 1.0))


def macs(graph: Graph, item: Item, loss: Loss) -> float:
    """Multiply-accumulates, in powers of e."""
    return math.log(max(float(analyze(graph).total.macs), 1.0))


def grad_norm(graph: Graph, item: Item, loss: Loss) -> float:
    """Norm of the loss's gradient, in training mode."""
    net = graph.module().train()
    with torch.enable_grad():
        loss(net, item).backward()
    return float(torch.stack([each.grad.norm() for each in net.parameters() if each.grad is not None]).norm())


def synflow(graph: Graph, item: Item, loss: Loss) -> float:
    """Sum over all parameters of |parameter × gradient| of the summed output, in powers of e: all parameters positive,
    the inputs all ones, batch norms left out, in double precision (Tanaka et al., arXiv 2006.05467, equation 2)."""
    net = graph.to(dtype=torch.float64).module()
    _bypass_norms(net)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.abs_()
    args = [torch.ones_like(each[:1]).double() if _is_real(each) else each for each in item[0]]
    args = [torch.cat([each, each]) if isinstance(each, Tensor) else each for each in args]  # a batch of 1 may be baked
    kwargs = {name: torch.ones_like(each).double() if _is_real(each) else each for name, each in dict(item[1]).items()}
    with torch.enable_grad():
        read_tensor(net(*args, **kwargs)).sum().backward()
    flow = sum(float((each.detach() * each.grad).abs().sum()) for each in net.parameters() if each.grad is not None)
    return math.log(flow) if flow > 0 else -math.inf


def jacobian(graph: Graph, item: Item, loss: Loss) -> float:
    """How little the gradients of the output by the input have in common for different inputs: by the eigenvalues of
    their correlations (Mellor et al., arXiv 2006.04647v1, equation 4)."""
    net, epsilon = graph.module().train(), 1e-5  # batch norms take the statistics of the data
    args = [each.detach().clone().requires_grad_() if _is_real(each) else each for each in item[0]]
    with torch.enable_grad():
        read_tensor(net(*args, **dict(item[1]))).sum().backward()
    parts = [each.grad.flatten(1) for each in args if isinstance(each, Tensor) and each.grad is not None]
    if not any(bool(part.any()) for part in parts):
        return -math.inf
    rows = torch.cat(parts, 1)
    correlations = torch.corrcoef(rows.double()).nan_to_num()
    values = torch.linalg.eigvalsh(correlations) + epsilon
    return -float((values.log() + 1 / values).sum())


def _bypass_norms(net: nn.Module) -> None:
    """Let batch norms give what they are given."""
    graph = net.graph
    for node in list(graph.nodes):  # type: ignore[union-attr]
        if node.op == "call_function" and "batch_norm" in str(node.target):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)  # type: ignore[operator]
    net.recompile()  # type: ignore[operator]


def _is_real(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


__all__ = ["Proxy", "grad_norm", "jacobian", "macs", "params", "proxies", "synflow"]
