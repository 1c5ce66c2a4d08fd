"""Plain PyTorch: Linear and convolution layers, whoever's neurons stand behind them."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from delaykit.attaching.adapter import Neuron, NeuronAdapter, Spot
from delaykit.attaching.connections import Attachment, CarriedConnection, DelayedConnection
from delaykit.attaching.retyping import retype_
from delaykit.attaching.root import Undo
from delaykit.synapse import Synapse

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class TorchAdapter(NeuronAdapter):
    """Lists every Linear and convolution that no library adapter claimed."""

    name: ClassVar[str] = "torch"

    def find(self, path: str, module: nn.Module) -> tuple[list[Spot], Neuron | None]:
        if isinstance(module, nn.Linear):
            return [Spot(path, "", module, module.in_features, module.out_features)], None
        if isinstance(module, CONVOLUTIONS):
            return [Spot(path, "", module, module.in_channels, module.out_channels, has_matrix=False)], None
        return [], None

    def attach_(self, spot: Spot, synapse: Synapse, attachment: Attachment) -> list[Undo]:
        return attach_connection_(spot.module, synapse, attachment)


def attach_connection_(module: nn.Module, synapse: Synapse, attachment: Attachment) -> list[Undo]:
    """Retype one connection module in place."""
    before = module.__class__
    mixin = CarriedConnection if attachment.timing.policy == "carried" else DelayedConnection
    retype_(module, mixin)
    module.__dict__["_dk"] = attachment
    module.add_module("dk", synapse)
    return [Undo(_detach_connection_, (module, before, attachment))]


def _detach_connection_(module: nn.Module, before: type, attachment: Attachment) -> None:
    module.__class__ = before
    del module._modules["dk"], module.__dict__["_dk"]
    attachment.history.clear()
