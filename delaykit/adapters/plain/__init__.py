"""Plain PyTorch: Linear and convolution layers."""

from delaykit.adapters.plain.adapter import TorchAdapter

__all__ = ["TorchAdapter"]
