"""Methods that a training run can name, one a line: what is known of each without torch.

What a method does to masks is in the file of `iftplan.nn.masking.algorithms` whose class has its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Method:
    """Method of a run, and what it costs and needs.

    Attributes:
        masked: whether there are masks; without, the network that is trained has no algorithm.
        gradual: whether its first steps compute with every weight.
        straight: whether a dense weight is behind each masked one, so that the gradients of all are computed.
        partly: whether only the gradients of some weights beyond the masks are, instead of all.
        looks: whether it looks at the gradients of all weights when masks change.
        averages: whether it looks at them in every step, until masks no longer change.
        curvature: whether its first step differentiates the gradients.
        selective: whether every weight computes, and masks say how many of them are trained.
    """

    masked: bool = True
    gradual: bool = False
    straight: bool = False
    partly: bool = False
    looks: bool = False
    averages: bool = False
    curvature: bool = False
    selective: bool = False

    @property
    def starts_dense(self) -> bool:
        """Whether weights outside the masks have values at the start."""
        return self.gradual or self.straight or self.selective or not self.masked


METHODS: Final[Mapping[str, Method]] = {
    "dense": Method(masked=False),  # the plan's dense model, the control
    "static": Method(),
    "set": Method(),
    "rigl": Method(looks=True),
    "srigl": Method(looks=True),
    "mest": Method(),
    "snfs": Method(averages=True),
    "gradual": Method(gradual=True),
    "iterative": Method(gradual=True),
    "granet": Method(gradual=True, looks=True),
    "snip": Method(gradual=True),
    "grasp": Method(gradual=True, curvature=True),
    "force": Method(gradual=True),
    "synflow": Method(gradual=True),
    "ste": Method(straight=True),
    "srste": Method(straight=True),
    "transposable": Method(straight=True),
    "top-kast": Method(straight=True, partly=True),
    "mask-decay": Method(gradual=True, straight=True),
    "structure-decay": Method(gradual=True, straight=True),
    "cast": Method(gradual=True, straight=True),
    "sara": Method(selective=True),
    "densified": Method(masked=False),  # every weight of the network that the plan makes
}
"""Method by name, in the order in which messages and the command line list them."""
