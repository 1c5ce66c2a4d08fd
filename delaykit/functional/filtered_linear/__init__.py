"""A linear connection whose synapses linger, each at its own rate, over whole sequences."""

from delaykit.functional.filtered_linear.operator import filtered_linear

__all__ = ["filtered_linear"]
