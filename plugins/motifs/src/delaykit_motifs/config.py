"""What users write: ``Motif(depth=41)``."""

from __future__ import annotations

import dataclasses
import pkgutil
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from delaykit import ComponentConfig, Site, checks

if TYPE_CHECKING:
    import torch


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
    initial: ClassVar[tuple[str, ...]] = ("scale",)

    depth: int
    _: dataclasses.KW_ONLY
    scale: float = 0.0
    learn: bool = True

    def __post_init__(self) -> None:
        checks.whole("Motif.depth", self.depth, least=1, what="whole number of delays", fix="pass e.g. 41")
        checks.number("Motif.scale", self.scale, least=0, what="standard deviation", fix="pass e.g. 0.01")
        checks.flag("Motif.learn", self.learn)

    def build(self, site: Site, generator: torch.Generator | None = None) -> Any:
        """Make the taps of one connection; random values come from ``generator``."""
        # by its name: the part knows its config, not the other way round
        return pkgutil.resolve_name("delaykit_motifs.delay:MotifDelay")(self, site, generator)
