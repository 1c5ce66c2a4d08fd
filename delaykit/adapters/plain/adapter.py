"""Plain PyTorch: Linear and convolution layers, whoever's neurons stand behind them."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from delaykit.attaching.adapter import Neuron, NeuronAdapter, Spot
from delaykit.attaching.connection.products import CONVOLUTIONS


class TorchAdapter(NeuronAdapter):
    """Lists every Linear and convolution that no library adapter claimed."""

    name: ClassVar[str] = "torch"
    api: ClassVar[int] = 1

    def find(self, path: str, module: nn.Module) -> tuple[list[Spot], Neuron | None]:
        if isinstance(module, nn.Linear):
            return [Spot(path, "", module, module.in_features, module.out_features)], None
        if isinstance(module, CONVOLUTIONS):
            return [Spot(path, "", module, module.in_channels, module.out_channels, has_matrix=False)], None
        return [], None
