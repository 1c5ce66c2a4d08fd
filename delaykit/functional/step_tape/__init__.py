"""Step mode: one connection inside anybody's own time loop."""

from delaykit.functional.step_tape.convolutions import ConvolutionTape
from delaykit.functional.step_tape.filters import Filter
from delaykit.functional.step_tape.operator import LinearTape, LineTape, ResponseTape, Tape
from delaykit.functional.step_tape.recording import Recording
from delaykit.functional.step_tape.segment import Passes, chained
from delaykit.functional.step_tape.segment_operators import FilterOperator, Gradients, RunningSums, SegmentOperator

Operator = SegmentOperator  # its former name

__all__ = [
    "ConvolutionTape", "Filter", "FilterOperator", "Gradients", "LinearTape", "LineTape", "Operator", "Passes",
    "Recording", "ResponseTape", "RunningSums", "SegmentOperator", "Tape", "chained",
]  # fmt: skip
