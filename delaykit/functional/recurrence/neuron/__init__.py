"""The neuron of a rollout, step by step: its equations, and who runs them."""

from delaykit.functional.recurrence.neuron.base import THRESHOLD, Switches, fire, pack
from delaykit.functional.recurrence.neuron.rows import commit_row, integrate_row

__all__ = ["THRESHOLD", "Switches", "commit_row", "fire", "integrate_row", "pack"]
