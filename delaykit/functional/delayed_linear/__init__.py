"""A linear connection whose synapses deliver late."""

from delaykit.functional.delayed_linear.operator import delayed_linear

__all__ = ["delayed_linear"]
