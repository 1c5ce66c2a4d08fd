"""Recurrent synapses of two cells each, in vector registers: windows they deliver into, and histories they read."""

from delaykit.functional.llvm.recurrence.lines import read_line
from delaykit.functional.llvm.recurrence.reading_ahead import AHEAD, list_ahead, read_ahead
from delaykit.functional.llvm.recurrence.two_step_gradients import STEPS, correlate_between, lay_steps
from delaykit.functional.llvm.recurrence.windows import deliver, padded, ring_kernels
from delaykit.functional.llvm.registers import LANES
from delaykit.functional.llvm.rows.layout import TOGETHER, count_used

__all__ = [
    "AHEAD",
    "LANES",
    "STEPS",
    "TOGETHER",
    "correlate_between",
    "count_used",
    "deliver",
    "lay_steps",
    "list_ahead",
    "padded",
    "read_ahead",
    "read_line",
    "ring_kernels",
]
