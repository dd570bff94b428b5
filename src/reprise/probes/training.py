"""The loss that the update itself computed."""

from __future__ import annotations

from typing import Any


def training_loss(snapshot: Any) -> Any:
    """The loss of the coming step on its own batch, exactly as the update computed it; costs nothing.

    The kernel fills it in from the step. Step t is the loss at the parameters after t updates; the last step
    of a run has none, because no update follows.
    """
    raise TypeError(
        "training_loss is filled in by the training loop; use loss to measure at given parameters"
    )
