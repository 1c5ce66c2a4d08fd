"""What users write: ``HetSyn()``."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from delaykit import ComponentConfig, ConfigError, Site

if TYPE_CHECKING:
    from delaykit_hetsyn.component import Decays

GRANULARITIES = ("synaptic", "post", "pre", "layer")


@dataclasses.dataclass(frozen=True)
class HetSyn(ComponentConfig):
    """Describe decays of a connection's synapses.

    Args:
        granularity: ``synaptic``, ``post``, ``pre`` or ``layer``.
    """

    granularity: str = "synaptic"

    kind: ClassVar[Any] = "heterogeneity"
    name: ClassVar[str] = "hetsyn"

    def __post_init__(self) -> None:
        if self.granularity not in GRANULARITIES:
            raise ConfigError("HetSyn.granularity", repr(self.granularity), f"one of {GRANULARITIES}")

    def build(self, site: Site, generator: torch.Generator | None = None) -> Decays:
        """Make the decays for one connection."""
        from delaykit_hetsyn.component import Decays

        return Decays(self, site, generator)
