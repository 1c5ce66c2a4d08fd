"""Delay channels: one causal filter a channel."""

from delaykit.functional.delay_line.operator import delay_line

__all__ = ["delay_line"]
