"""What may watch a training: history as measurements, and the trackers that people have."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from planish.errors import MissingExtra, PlanishError, UserError
from planish.record import Measurement, Run

STAGE = "train"


@dataclass(frozen=True)
class Moment:
    """Where a training is.

    Attributes:
        step: Steps of the optimizer done.
        epoch: Passes over the data done.
        loss: Of the last step, or the mean of the epoch (`on_epoch`, `on_end`).
        learning_rate: Of the last step.
        length: Of the last step's gradient over all parameters, before it was clipped.
        seconds: Time so far, that before a resumption included.
        share: How much of the training is done, 0 to 1.
    """

    step: int
    epoch: int
    loss: float
    learning_rate: float
    length: float
    seconds: float
    share: float


class Callback(Protocol):
    """Watches a training. An exception in it ends the training with an error that names the callback."""

    def on_step(self, moment: Moment) -> None:
        """After each step."""
        ...

    def on_epoch(self, moment: Moment) -> None:
        """After each pass over the data."""
        ...

    def on_end(self, moment: Moment) -> None:
        """When a limit is reached."""
        ...


class History:
    """The training as measurements: loss and rate by epoch, steps and seconds at the end.

    Args:
        run: A run folder that gets them too, each as it is known. What an earlier attempt left there stays as far as
            this one goes on from it, and is replaced once this one has begun.

    Attributes:
        rows: All so far.
    """

    def __init__(self, run: Run | None = None) -> None:
        self.rows: list[Measurement] = []
        self._run = run
        self._begun = False

    def on_step(self, moment: Moment) -> None:
        """Nothing is kept of a single step."""
        self._begin(moment.step - 1)

    def on_epoch(self, moment: Moment) -> None:
        """Keep the epoch's mean loss."""
        self._begin(moment.step - 1)  # a training that goes on from an epoch's last step ends that epoch again
        details = {"epoch": moment.epoch, "step": moment.step, "learning_rate": moment.learning_rate}
        self._add(Measurement("training_loss", moment.loss, "1", "measured", details=details))

    def on_end(self, moment: Moment) -> None:
        """Keep steps and time."""
        self._begin(moment.step)
        self._add(Measurement("training_steps", moment.step, "1", "exact"))
        self._add(Measurement("training_time", moment.seconds, "s", "measured", details={"steps": moment.step}))

    def _begin(self, done: int) -> None:
        if self._run is not None and not self._begun:
            rows = [row for row in self._run.measurements() if row.stage == STAGE]
            self._run.drop(STAGE)
            self._run.add([row for row in rows if row.details.get("step", done + 1) <= done], STAGE)
        self._begun = True

    def _add(self, row: Measurement) -> None:
        self.rows.append(row)
        if self._run is not None:
            self._run.add(row, STAGE)


class Tracker:
    """A callback that passes every step's numbers on.

    Args:
        log: Called with (`{name: value}`, step).
        close: Called at the end.
    """

    def __init__(self, log: Callable[[dict[str, float], int], Any], close: Callable[[], Any] | None = None) -> None:
        self._log, self._close = log, close

    def on_step(self, moment: Moment) -> None:
        """Pass on loss, rate and the gradient's length."""
        values = {"loss": moment.loss, "learning_rate": moment.learning_rate, "gradient_length": moment.length}
        self._log({f"train/{name}": value for name, value in values.items()}, moment.step)

    def on_epoch(self, moment: Moment) -> None:
        """Pass on the epoch's mean loss."""
        self._log({"train/epoch_loss": moment.loss}, moment.step)

    def on_end(self, moment: Moment) -> None:
        """Close the tracker."""
        if self._close is not None:
            self._close()


def tensorboard(folder: str | os.PathLike[str]) -> Tracker:
    """A tracker that writes TensorBoard's event files.

    Raises:
        MissingExtra: tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtra("tensorboard", "track") from error
    writer = SummaryWriter(os.fspath(folder))

    def log(values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    return Tracker(log, writer.close)


def mlflow() -> Tracker:
    """A tracker that logs to the active MLflow run.

    Raises:
        MissingExtra: mlflow is not installed.
    """
    try:
        import mlflow as library  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingExtra("mlflow", "track") from error
    return Tracker(lambda values, step: library.log_metrics(values, step=step))


def wandb(run: Any) -> Tracker:
    """A tracker that logs to a Weights & Biases run, as `wandb.init` gives it."""
    return Tracker(lambda values, step: run.log(values, step=step), run.finish)


def tell(callbacks: Iterable[Callback], event: Literal["on_step", "on_epoch", "on_end"], moment: Moment) -> None:
    """Call each callback.

    Raises:
        UserError: One raised; says which, and at which step.
    """
    for callback in callbacks:
        try:
            getattr(callback, event)(moment)
        except PlanishError:
            raise
        except Exception as error:
            what = f"the callback {type(callback).__name__} failed in {event}: {type(error).__name__}: {error}"
            raise UserError(what, f"step {moment.step}", "repair or leave out the callback, and resume") from error
