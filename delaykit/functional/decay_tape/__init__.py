"""Step mode of lingering synapses."""

from delaykit.functional.decay_tape.operator import SynapseTape

__all__ = ["SynapseTape"]
