"""Running sums over time, with a decay."""

from delaykit.functional.running_sum.operator import running_sum

__all__ = ["running_sum"]
