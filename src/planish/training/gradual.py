"""`Gradual`: let the zeros of masks come in while the model learns to do without what they cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from planish.errors import OptionError
from planish.graph import Data, Graph, Pass, Progress, Step
from planish.graph.evaluate import fold
from planish.training.callbacks import Moment
from planish.training.distill import Distill
from planish.training.recovery import Recovery

Choice = Literal["given", "magnitude", "movement"]


@dataclass(frozen=True)
class Gradual(Pass):
    """Distill with masks that start without zeros and end with as many as they have now.

    After Prune, which says how many and in which pattern. At share `t` of the ramp there are `1 - (1 - t)**3` of them:
    many while the model can still mend them, few at the end (Zhu and Gupta, arXiv 1710.01878, equation 1).

    Attributes:
        by: "given" cuts what Prune has chosen, the smallest first, and so keeps every pattern. The others choose anew,
            each weight for itself, whenever zeros are added: "magnitude" the smallest, "movement" those that the
            gradient has moved towards zero since the start (Sanh et al., arXiv 2005.07683).
        ramp: Share of the training over which zeros come in; the rest is with the final ones.
        updates: How often zeros are added.
        training: How it is trained.
    """

    by: Choice = "given"
    ramp: float = 0.6
    updates: int = 30
    training: Distill = field(default_factory=Distill)

    learns: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.by not in get_args(Choice):
            raise OptionError(f"unknown choice {self.by!r}", "by", f"one of {', '.join(map(repr, get_args(Choice)))}")
        if not 0 < self.ramp <= 1:
            raise OptionError(f"a ramp is a share of the training, not {self.ramp}", "ramp", "ramp=0.6")
        if self.updates < 1:
            raise OptionError(f"zeros come in once or more often, not {self.updates} times", "updates")

    def plan(self, graph: Graph) -> list[Step]:
        """One step for each mask, then those of the training."""
        steps = []
        for product, mask in masks(graph).items():
            zeros = 1 - float(graph.tensors[mask].float().mean())
            node = graph.node(product)
            steps.append(Step(node.path, product, f"{zeros:.0%} zeros come in"))
        return [*steps, *self.training.plan(graph)]

    def apply(self, graph: Graph, data: Data | None, progress: Progress) -> Graph:
        """The trained graph."""
        recovery = self.training.recovery(graph, data)
        recovery.run(self.training.training, [_Ramp(graph, recovery, self)], progress=progress)
        return recovery.graph()


def masks(graph: Graph) -> dict[str, str]:
    """Name of each product with a mask -> the mask's tensor.

    Raises:
        OptionError: There is none.
    """
    found = {}
    for node in (node for node in graph.nodes if node.op == "mul"):
        for source in node.inputs:
            if source.tensor is not None and source.tensor.dtype == torch.bool and len(node.inputs) == 2:
                found[node.name] = str(source.target)
    if not found:
        raise OptionError("no weight of the graph has a mask", "Gradual", "Recipe(Prune('50%'), Gradual())")
    return found


class _Ramp:
    """Adds zeros to the masks of a net while it trains."""

    def __init__(self, graph: Graph, recovery: Recovery, options: Gradual) -> None:
        self._recovery, self._options, self._done = recovery, options, -1
        net, own = recovery.net, {name for name, _ in recovery.net.named_buffers()}
        self._products = {product: mask for product, mask in masks(graph).items() if mask in own}
        if not self._products:
            raise OptionError("no weight with a mask trains", "training.where", "where='any - embedding'")
        self._final = {mask: graph.tensors[mask] for mask in self._products.values()}
        self._moved: dict[str, Tensor] = {}
        for mask, kept in self._final.items():
            ones = torch.ones_like(kept, dtype=torch.float32)  # a number, so that it can have a gradient
            self._moved[mask] = torch.zeros_like(ones)
            if options.by == "movement":
                ones.requires_grad_()
                ones.register_post_accumulate_grad_hook(self._collector(mask))
            _set_buffer(net, mask, ones)

    def on_step(self, moment: Moment) -> None:
        """Add zeros if it is time to."""
        share = min(1.0, moment.share / self._options.ramp)
        place = int(share * self._options.updates)
        if place > self._done:
            self._done = place
            self._update(1 - (1 - place / self._options.updates) ** 3)

    def on_epoch(self, moment: Moment) -> None:
        """Nothing."""

    def on_end(self, moment: Moment) -> None:
        """All zeros are in."""

    @torch.no_grad()
    def _update(self, share: float) -> None:
        scores = self._moved if self._options.by == "movement" else self._magnitudes()
        for mask, final in self._final.items():
            count, score = round(share * int((~final).sum())), scores[mask]
            if self._options.by == "given":
                score = torch.where(final, torch.inf, score)
            cut = torch.ones_like(score).flatten()
            cut[score.flatten().topk(count, largest=False).indices] = 0
            self._recovery.net.get_buffer(mask).copy_(cut.reshape(score.shape))

    def _magnitudes(self) -> Mapping[str, Tensor]:
        """Of each masked weight as it is now, the mask left out."""
        now = self._recovery.student()
        found = {}
        for product, mask in self._products.items():
            weight = next(node for node in now.node(product).inputs if str(node.target) != mask)
            value = fold(now, weight.fx)
            assert value is not None, "a weight expression depends on tensors only"
            found[mask] = value.detach().abs()
        return found

    def _collector(self, mask: str) -> Callable[[Tensor], None]:
        def collect(ones: Tensor) -> None:
            assert ones.grad is not None
            self._moved[mask] -= ones.grad
            ones.grad = None

        return collect


def _set_buffer(net: nn.Module, name: str, tensor: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    net.get_submodule(path)._buffers[leaf] = tensor
