"""The measurements that a job reads off a graph, rather than takes."""

from __future__ import annotations

from planish.analysis import Cost, Profile
from planish.analysis.peaks import MEMORY_BYTES, Peak
from planish.flow.source import Source
from planish.graph import Graph
from planish.record import Measurement


def model_rows(source: Source) -> list[Measurement]:
    """`model` and the `size` of its weights."""
    graph, task = source.graph, source.task
    parameters = sum(graph.tensors[name].numel() for name in graph.parameter_names)
    details = {"task": task.description if task else "", "family": task.family if task else ""}
    weights = {tensor.data_ptr(): tensor for name, tensor in graph.tensors.items() if name in graph.parameter_names}
    size = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    return [
        Measurement("model", parameters, "1", "exact", subject=source.name, details=details),
        Measurement("size", size, "B", "exact", subject="original"),
    ]


def bits(graph: Graph) -> list[Measurement]:
    """`weight_bits` and `activation_bits` of every layer with a weight; what is not cast has the bits of its dtype."""
    rows = []
    for node in graph.nodes:
        if node.weight is None:
            continue
        details = {"node": node.name, "op": node.op, "type": node.module_type}
        for name, operand in (("weight_bits", node.weight), ("activation_bits", node.input)):
            if operand is None or operand.dtype is None or not operand.dtype.is_floating_point:
                continue
            form = operand.format
            width = form.bits if form else operand.dtype.itemsize * 8
            label = str(form) if form else str(operand.dtype).removeprefix("torch.")
            rows.append(
                Measurement(name, width, "bit", "exact", None, "chosen", node.path, {**details, "format": label})
            )
    return rows


def observed(cost: Cost, profile: Profile) -> dict[str, Peak]:
    """The best rates that operations of a model reached: arithmetic by format, and memory.

    Memory only counts where an operation moves more than caches hold; what is smaller is not read from memory at all.
    """
    best: dict[str, Peak] = {}
    for node in cost.nodes:
        timing = profile.timings.get(node.node)
        if timing is None or not timing.median:
            continue
        rates = {node.compute: node.work.flops / timing.median}
        if node.work.bytes >= MEMORY_BYTES:
            rates["memory"] = node.work.bytes / timing.median
        for name, rate in rates.items():
            if name not in best or rate > best[name].rate:
                best[name] = Peak(rate, f"{node.op} of {node.path or 'the model'}, as profiled")
    return best
