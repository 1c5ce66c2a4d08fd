"""Norse: cells, sequence modules and SequentialState."""

from delaykit.adapters.norse.adapter import NorseAdapter

__all__ = ["NorseAdapter"]
