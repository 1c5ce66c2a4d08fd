"""Step mode: one connection inside anybody's own time loop."""

from delaykit.functional.step_tape.operator import LinearTape, LineTape, ResponseTape, Tape

__all__ = ["LinearTape", "LineTape", "ResponseTape", "Tape"]
