"""What users write: ``Motif(depth=41)``."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, ClassVar, Literal

from delaykit import ComponentConfig, ConfigError, Site

if TYPE_CHECKING:
    import torch

    from delaykit_motifs.delay import MotifDelay


@dataclasses.dataclass(frozen=True)
class Motif(ComponentConfig):
    """Give each synapse a weight for each of ``depth`` delays.

    ``K[post, pre, 0] = w[post, pre]``, ``K[post, pre, tau] = taps[post, pre, tau - 1]`` for 0 < tau < depth

    Tap 0 is the module's own weight. The others start at zero, which is the bare connection.

    Args:
        depth: number of delays D >= 1, tau = 0 .. D - 1 steps. On a recurrent connection, whose input is already one
            step old, the latencies are 1 .. D.
        scale: standard deviation of the initial taps at tau > 0.
        learn: whether the taps are trained.

    Raises:
        ConfigError: a value is of the wrong type or out of range.

    Example:
        >>> Motif(depth=41).to_json()
        {'depth': 41, 'scale': 0.0, 'learn': True}

    Reference: arXiv 2604.14096, where the latency d of a recurrent spike is our tau + 1.
    """

    kind: ClassVar[Literal["delay"]] = "delay"
    name: ClassVar[str] = "motif"

    depth: int
    _: dataclasses.KW_ONLY
    scale: float = 0.0
    learn: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.depth, int) or isinstance(self.depth, bool) or self.depth < 1:
            raise ConfigError("Motif.depth", repr(self.depth), "a whole number of delays >= 1", "pass e.g. 41")
        number = isinstance(self.scale, (int, float)) and not isinstance(self.scale, bool)
        if not number or not 0 <= self.scale < math.inf:
            raise ConfigError("Motif.scale", repr(self.scale), "a finite standard deviation >= 0", "pass e.g. 0.01")
        if not isinstance(self.learn, bool):
            raise ConfigError("Motif.learn", repr(self.learn), "True or False", "pass one of these")

    def build(self, site: Site, generator: torch.Generator | None = None) -> MotifDelay:
        """Make the taps of one connection; random values come from ``generator``."""
        from delaykit_motifs.delay import MotifDelay

        return MotifDelay(self, site, generator)
