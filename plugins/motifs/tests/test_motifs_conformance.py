"""The laws every component owes, on motif tensors."""

from __future__ import annotations

import torch
from torch import nn

from delaykit.testing import ComponentConformance
from delaykit.testing.kit import parts_of
from delaykit.testing.nets import TinyNet
from delaykit_motifs import Motif


class TestMotif(ComponentConformance):
    config = Motif(depth=4, scale=0.1)
    identity_config = Motif(depth=4)

    def wrapped(self, tiny: TinyNet, stir: bool = True, only: tuple[str, ...] | None = None) -> nn.Module:
        """Taps are weights of either sign: the kit's stirring, made for delays >= 0, would drive every neuron hard."""
        net = super().wrapped(tiny, stir, only)
        with torch.no_grad():
            for part in parts_of(net) if stir else ():
                part.taps.sub_(part.taps.mean())
        return net
