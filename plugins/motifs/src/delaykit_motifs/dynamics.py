"""The neurons of a memory: leaky, with a hard or a subtractive reset."""

from __future__ import annotations

import dataclasses
from typing import Literal

from delaykit.errors import ConfigError

RESETS = ("hard", "subtractive")


@dataclasses.dataclass(frozen=True)
class Dynamics:
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
        if not self.theta > 0:
            raise ConfigError("Dynamics.theta", repr(self.theta), "a threshold > 0", "pass e.g. 0.95")
        if not 0 <= self.beta <= 1:
            raise ConfigError("Dynamics.beta", repr(self.beta), "a factor in [0, 1]", "pass e.g. 0.7")
        if self.reset not in RESETS:
            raise ConfigError("Dynamics.reset", repr(self.reset), f"one of {RESETS}", "spell one of these")
