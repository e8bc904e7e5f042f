"""The training loop, for any module and any loss.

    loop = Loop(module, data, loss, Training(epochs=3))
    loop.run()

A step reads `accumulate` items, clips the gradient of their mean loss, and moves the parameters. All that a step
depends on is in a checkpoint: a training that was killed ends with the same bits as one that was not.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from typing import Any

import torch
from torch import Tensor, nn

from planish.errors import DataError, OptionError, UserError
from planish.training import randomness
from planish.training.average import Average
from planish.training.callbacks import Callback, Moment, tell
from planish.training.checkpoint import Checkpoints, like
from planish.training.engine import Alone, Engine, Item, Loss
from planish.training.optimizers import groups
from planish.training.options import Training
from planish.training.schedules import scheduler

Progress = Callable[[int, int, str], None]


class Diverged(UserError):
    """The loss or its gradient is NaN or infinite. The step was not taken.

    Attributes:
        module: The module as the step before left it.
    """

    def __init__(self, what: str, where: str, hint: str, module: nn.Module) -> None:
        super().__init__(what, where, hint)
        self.module = module


class Loop:
    """One training of one module, in the mode (`train()`, `eval()`) that it is in.

    Args:
        module: Its parameters that ask for gradients are trained in place.
        data: Re-iterable items. What has a length and can be indexed is shuffled, if `training` says so.
        loss: Of an item.
        training: The options.
        callbacks: What watches.
        checkpoints: Where to save, and what to continue from.
        progress: Called with (thousandths done, 1000, what).
        engine: Makes what computes the gradients, one process on one device by default.

    Attributes:
        step: Steps done.
        epoch: Passes over the data done.

    Raises:
        OptionError: Nothing asks for a gradient.
        DataError: There is no data.
    """

    def __init__(
        self,
        module: nn.Module,
        data: Iterable[Item],
        loss: Loss,
        training: Training,
        callbacks: Sequence[Callback] = (),
        checkpoints: Checkpoints | None = None,
        progress: Progress | None = None,
        engine: Callable[[nn.Module, Loss, Training], Engine] = Alone,
    ) -> None:
        self.module, self.training, self.step, self.epoch = module, training, 0, 0
        self._data, self._callbacks, self._checkpoints = data, callbacks, checkpoints
        self._progress = progress
        if not any(p.requires_grad for p in module.parameters()):
            raise OptionError("no parameter of the model asks for a gradient", "training", "requires_grad_(True)")
        self._engine = engine(module, loss, training)
        self._parameters = self._engine.parameters()
        self._items = len(data) if isinstance(data, Sized) else sum(1 for _ in data)
        if not self._items:
            raise DataError("there is no data to train on", "data", "yield at least one item")
        self._optimizer = training.make_optimizer(
            groups(self._parameters.values(), training.weight_decay), lr=training.learning_rate
        )
        self._scaler = self._engine.scaler
        self._average = Average(self._parameters.values(), training.average) if training.average else None
        self._place, self._total, self._before, self._start = 0, 0.0, 0.0, time.monotonic()
        self._scheduler = scheduler(self._optimizer, training.factor, self._middle)
        self._sown: dict[str, Any] = {}

    def run(self) -> None:
        """Train to the end, from the last checkpoint if there is one.

        Raises:
            Diverged: The loss became NaN or infinite; names the step.
            UserError: A callback failed, or the checkpoint is of another training.
        """
        with randomness.seeded(self.training.seed):
            self._start = time.monotonic()
            saved = self._checkpoints.load(self._like) if self._checkpoints else None
            if saved is not None:
                self._restore(*saved)
            while not self._is_over():
                self._run_epoch()
            self._save()
            if self._checkpoints:
                self._checkpoints.finish()
            if self._average:
                self._average.apply()
            tell(self._callbacks, "on_end", self._moment(self._total / max(1, self._place or self._per_epoch)))

    # One epoch -------------------------------------------------------------------------------------------------------

    def _run_epoch(self) -> None:
        if self._place == 0:
            self._sown, self._total = randomness.state(), 0.0
        now = randomness.state()
        randomness.restore(self._sown)  # of an epoch that is continued: data that draws its own order does so again
        steps = self._groups()
        for _ in itertools.islice(steps, self._place):
            pass
        if self._place:
            randomness.restore(now)
        for group in steps:
            self._step(group)
            if self._place == self._per_epoch:
                break
            if self._is_over():
                return
        self.epoch, self._place = self.epoch + 1, 0
        tell(self._callbacks, "on_epoch", self._moment(self._total / self._per_epoch))

    def _groups(self) -> Iterator[list[Item]]:
        """The items of each step of this epoch."""
        items: Iterator[Item] = iter(self._data)
        if self.training.shuffle and hasattr(self._data, "__getitem__"):
            chosen = randomness.order(self._items, self.training.seed, self.epoch)
            items = (self._data[place] for place in chosen)  # type: ignore[index]
        while group := list(itertools.islice(items, self.training.accumulate)):
            yield group

    @property
    def _per_epoch(self) -> int:
        return -(-self._items // self.training.accumulate)

    # One step --------------------------------------------------------------------------------------------------------

    def _step(self, group: list[Item]) -> None:
        total = self._engine.backward(group, self.step)
        self._scaler.unscale_(self._optimizer)
        length = self._engine.length()
        self._check(total, length)
        if self.training.clip:
            self._shrink(self.training.clip / (length + 1e-6))
        self._scaler.step(self._optimizer)  # passes over a step whose scaled gradients overflowed
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        if self._average:
            self._average.update()
        self.step, self._place, self._total = self.step + 1, self._place + 1, self._total + total
        rate = self._optimizer.param_groups[0]["lr"]
        self._scheduler.step()
        if self._checkpoints and self.step % self._checkpoints.every == 0:
            self._save()
        self._tell(total, rate, length)

    def _shrink(self, factor: float) -> None:
        """Multiply the gradient, if that makes it shorter."""
        for parameter in self._parameters.values():
            if factor < 1 and parameter.grad is not None:
                parameter.grad.mul_(factor)

    def _check(self, loss: float, length: float) -> None:
        """Refuse a step that would destroy the parameters."""
        if math.isfinite(loss) and (math.isfinite(length) or self._scaler.is_enabled()):
            return
        self._optimizer.zero_grad(set_to_none=True)
        self._save()
        if self._checkpoints:
            self._checkpoints.finish()
        what = f"the loss is {loss} and its gradient's length {length}"
        hint = "a lower learning_rate, clip=1.0, or precision='fp32'"
        raise Diverged(what, f"step {self.step + 1}, epoch {self.epoch + 1}", hint, self.module)

    # Where we are ----------------------------------------------------------------------------------------------------

    def _seconds(self) -> float:
        return self._engine.agreed(self._before + time.monotonic() - self._start)

    def _share(self) -> float:
        """How much is done: of steps, of epochs or of time, whichever is furthest."""
        training = self.training
        shares = [0.0]
        shares += [self.step / training.steps] if training.steps else []
        shares += [self.step / (training.epochs * self._per_epoch)] if training.epochs else []
        shares += [self._seconds() / (60 * training.minutes)] if training.minutes else []
        return min(1.0, max(shares))

    def _middle(self) -> float:
        """How much is done, counted such that neither the first step nor the last one is at an end of the schedule."""
        limits = [self.training.steps, self.training.epochs and self.training.epochs * self._per_epoch]
        by_steps = [(self.step + 1) / (limit + 1) for limit in limits if limit]
        by_time = [self._seconds() / (60 * self.training.minutes)] if self.training.minutes else []
        return min(1.0, max(by_steps + by_time))

    def _is_over(self) -> bool:
        return self._share() >= 1.0

    def _moment(self, loss: float, rate: float | None = None, length: float = math.nan) -> Moment:
        now = float(self._optimizer.param_groups[0]["lr"])
        return Moment(
            self.step, self.epoch, loss, now if rate is None else rate, length, self._seconds(), self._share()
        )

    def _tell(self, loss: float, rate: float, length: float) -> None:
        tell(self._callbacks, "on_step", self._moment(loss, rate, length))
        if self._progress:
            self._progress(int(1000 * self._share()), 1000, f"step {self.step}, loss {loss:.3g}")

    # Checkpoints -----------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        if not self._checkpoints:
            return
        tensors = {f"module.{name}": tensor for name, tensor in self._engine.tensors().items()}
        for name, parameter in self._parameters.items():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{name}.{key}"] = value
        if self._average:
            tensors |= {f"average.{n}": v for n, v in zip(self._parameters, self._average.values, strict=True)}
        schedule = self._scheduler.state_dict()
        schedule.pop("lr_lambdas", None)
        rest = {
            "training": _described(self.training),
            "scheduler": schedule,
            "rates": [group["lr"] for group in self._optimizer.param_groups],
            "scaler": self._scaler.state_dict(),
            "position": [self.step, self.epoch, self._place, self._total, self._seconds()],
            "random": randomness.state(),
            "sown": self._sown,
        }
        self._checkpoints.save(self.step, tensors, rest)

    def _like(self, name: str, shape: torch.Size, dtype: torch.dtype) -> Tensor | None:
        """What a tensor of a checkpoint is read into; None for what other processes have."""
        kind, _, rest = name.partition(".")
        if kind != "optimizer":
            known = self._engine.tensors().get(rest)
            return None if known is None or known.shape != shape else like(known, dtype)
        rest, _, key = rest.rpartition(".")
        parameter = self._parameters.get(rest)
        if parameter is None:
            return None
        return like(parameter, dtype) if key != "step" and parameter.shape == shape else torch.empty(shape, dtype=dtype)

    @torch.no_grad()
    def _restore(self, tensors: dict[str, Tensor], rest: dict[str, Any]) -> None:
        mine = self._engine.tensors()
        whole = all(f"module.{name}" in tensors for name in mine)
        if not whole or rest["training"] != _described(self.training):
            where = str(self._checkpoints.folder) if self._checkpoints else ""
            raise UserError("the checkpoint is of another model or of other options", where, "another folder")
        for name, tensor in mine.items():
            tensor.copy_(tensors[f"module.{name}"])
        for name, parameter in self._parameters.items():
            start = f"optimizer.{name}."
            found = {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
            if found:
                self._optimizer.state[parameter] = {
                    key: value if key == "step" else value.to(parameter.device) for key, value in found.items()
                }
        for group, rate in zip(self._optimizer.param_groups, rest["rates"], strict=False):
            group["lr"] = rate
        self._scheduler.load_state_dict({**rest["scheduler"], "lr_lambdas": [None] * len(self._scheduler.lr_lambdas)})
        self._scaler.load_state_dict(rest["scaler"])
        if self._average:
            self._average.load([tensors[f"average.{name}"] for name in self._parameters], rest["position"][0])
        self.step, self.epoch, self._place, self._total, self._before = rest["position"]
        self._sown = rest["sown"]
        randomness.restore(rest["random"])


def _described(training: Training) -> dict[str, Any]:
    """The options as text, so that those of a checkpoint can be compared."""
    return {name: value if isinstance(value, str) else repr(value) for name, value in vars(training).items()}
