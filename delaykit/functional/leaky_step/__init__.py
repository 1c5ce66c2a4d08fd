"""One step of a leaky neuron, for time loops of the user's own."""

from delaykit.functional.leaky_step.operator import Leak, kernel_for, leaky_step

__all__ = ["Leak", "kernel_for", "leaky_step"]
