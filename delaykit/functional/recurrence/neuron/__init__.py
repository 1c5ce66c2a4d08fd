"""The neuron of a rollout, step by step: its equations, and who runs them."""

from delaykit.functional.recurrence.neuron.base import THRESHOLD, Switches, fire, pack

__all__ = ["THRESHOLD", "Switches", "fire", "pack"]
