"""Compiled sums over rows, in vector registers: a neuron's sequence is one row of numbers, a delay an offset."""

from delaykit.functional.llvm.rows.dots import dot_rows
from delaykit.functional.llvm.rows.layout import TOGETHER, count_used, lay_rows, list_taps, pick
from delaykit.functional.llvm.rows.sums import REGISTERS, add_events, correlate_events, mix_rows, read_taps

__all__ = [
    "REGISTERS",
    "TOGETHER",
    "add_events",
    "correlate_events",
    "count_used",
    "dot_rows",
    "lay_rows",
    "list_taps",
    "mix_rows",
    "pick",
    "read_taps",
]
