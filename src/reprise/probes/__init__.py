"""Measurements of a member at chosen steps: plain functions of a snapshot, scheduled from outside."""

from .loss import accuracy, distance, gradient_norm, loss, weight_norm
from .schedule import Scheduled, at, end, every, logspaced
from .training import training_loss

__all__ = [
    "Scheduled",
    "accuracy",
    "at",
    "distance",
    "end",
    "every",
    "gradient_norm",
    "logspaced",
    "loss",
    "training_loss",
    "weight_norm",
]
