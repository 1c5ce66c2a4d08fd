"""snnTorch: neurons that keep their membrane in ``.mem``."""

from delaykit.adapters.snntorch.adapter import SnnTorchAdapter

__all__ = ["SnnTorchAdapter"]
