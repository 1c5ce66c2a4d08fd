"""Decays of a connection's synapses."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from delaykit.interfaces import Heterogeneity, Site
from delaykit_hetsyn.config import HetSyn


class Decays(Heterogeneity):
    """Hold one decay for each synapse, neuron or layer."""

    def __init__(self, config: HetSyn, site: Site, generator: torch.Generator | None) -> None:
        super().__init__()
        shape = {
            "synaptic": (site.post, site.pre), "post": (site.post, 1), "pre": (1, site.pre), "layer": (1, 1)
        }[config.granularity]  # fmt: skip
        self.r = nn.Parameter(torch.zeros(shape))

    def decay(self) -> Tensor:
        """Return the decays."""
        return self.r
