"""The neurons of a memory: leaky, with a hard or a subtractive reset."""

from __future__ import annotations

import dataclasses
from typing import Literal

from delaykit import checks

RESETS = ("hard", "subtractive")


@checks.annotated
@dataclasses.dataclass(frozen=True)
class MotifDynamics:
    """Describe the neurons of a motif memory; one step is 1 ms.

    ``u[t] = beta u[t-1] (1 - s[t-1]) + I[t]`` (hard) or ``beta u[t-1] - theta s[t-1] + I[t]`` (subtractive),
    ``s[t] = [u[t] >= theta]``

    Args:
        theta: threshold, > 0.
        beta: what is left of a membrane after a step, in [0, 1].
        reset: ``hard`` or ``subtractive``.

    Raises:
        ConfigError: a value out of range.

    Reference: arXiv 2604.14096 (hard reset).
    """

    theta: float = 0.95
    beta: float = 0.7
    reset: Literal["hard", "subtractive"] = "hard"

    def __post_init__(self) -> None:
        checks.number("MotifDynamics.theta", self.theta, above=0, what="threshold", fix="pass e.g. 0.95")
        checks.number("MotifDynamics.beta", self.beta, least=0, most=1, what="factor", fix="pass e.g. 0.7")
        checks.choice("MotifDynamics.reset", self.reset, RESETS)


Dynamics = MotifDynamics  # its former name
