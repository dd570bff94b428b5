"""Tasks: data, batches, losses and exact baselines."""

from .digits import Digits
from .images import CropAndFlip, Images
from .in_context import InContextRegression
from .losses import cross_entropy, squared
from .modular import ModularArithmetic
from .noise import LabelNoise, SmoothedLabels, TargetNoise
from .objective import Minimise
from .task import Task, epoch_order
from .teacher import TeacherRegression

__all__ = [
    "CropAndFlip",
    "Digits",
    "Images",
    "InContextRegression",
    "LabelNoise",
    "Minimise",
    "ModularArithmetic",
    "SmoothedLabels",
    "TargetNoise",
    "Task",
    "TeacherRegression",
    "cross_entropy",
    "epoch_order",
    "squared",
]
