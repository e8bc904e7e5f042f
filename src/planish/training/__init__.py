"""Training: one loop for captured graphs and for the user's own modules, and recovery from a teacher."""

from planish.training.callbacks import Callback, History, Moment, Tracker, mlflow, tensorboard, wandb
from planish.training.checkpoint import Checkpoints
from planish.training.distill import Distill
from planish.training.fit import Fit
from planish.training.gradual import Gradual
from planish.training.loop import Diverged, Loop
from planish.training.options import Training
from planish.training.start import train

__all__ = [
    "Callback",
    "Checkpoints",
    "Distill",
    "Diverged",
    "Fit",
    "Gradual",
    "History",
    "Loop",
    "Moment",
    "Tracker",
    "Training",
    "mlflow",
    "tensorboard",
    "train",
    "wandb",
]
