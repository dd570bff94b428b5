"""Update rules: pure functions of stacked parameters, whose every number may differ by member.

A rule works on flat parameters `params: (M, P)`, one row a member. It receives the gradient as a *function*,
so that a rule may call it several times (SAM), and its numbers as tensors `hyper` that the sweep evaluates
for the current step: (M, 1), or (M, P) where a number was given by parameter name. Rules follow
`torch.optim`: coupled decay in SGD and Adam, decoupled in AdamW, Adam's eps outside the root.
"""

from .descent import SGD, Adam, AdamW, RMSProp
from .rule import Gradient, Number, Rule, State, expand, is_number
from .wrappers import SAM, Clipped, Masked

__all__ = [
    "SAM",
    "SGD",
    "Adam",
    "AdamW",
    "Clipped",
    "Gradient",
    "Masked",
    "Number",
    "RMSProp",
    "Rule",
    "State",
    "expand",
    "is_number",
]
