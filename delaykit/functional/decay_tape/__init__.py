"""Step mode of lingering synapses, and of those that delay, too."""

from delaykit.functional.decay_tape.arrivals import ArrivalTape
from delaykit.functional.decay_tape.operator import SynapseTape

__all__ = ["ArrivalTape", "SynapseTape"]
