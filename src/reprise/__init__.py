"""Reprise: describe one experiment, train many as one batch, and check every claim.

from reprise import Experiment, Sweep, SGD, MLP, Digits, every, loss
"""

from .chapter import Chapter
from .experiment import Experiment
from .models import MLP, Objective, Transformer
from .probes import accuracy, at, end, every, logspaced, loss, training_loss, weight_norm
from .record import Record
from .states import State, States
from .streams import Stream
from .sweep import Sweep, Trained
from .updates import SAM, SGD, Adam, AdamW, Clipped, Masked, RMSProp

__version__ = "0.1.0"

__all__ = [
    "MLP",
    "SAM",
    "SGD",
    "Adam",
    "AdamW",
    "Chapter",
    "Clipped",
    "Experiment",
    "Masked",
    "Objective",
    "RMSProp",
    "Record",
    "State",
    "States",
    "Stream",
    "Sweep",
    "Trained",
    "Transformer",
    "accuracy",
    "at",
    "end",
    "every",
    "logspaced",
    "loss",
    "training_loss",
    "weight_norm",
]
