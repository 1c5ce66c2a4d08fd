"""Pure tensor functions: operators know tensors and nothing else. One room an operator, what they share beside them.

A room holds the contract (``operator.py``), the judge (``reference.py``) and one file for each backend; what others may
use is in its ``__all__``: ``from delaykit.functional.delayed_linear import delayed_linear``. The room ``llvm`` is the
Numba backends' alone, and may be deleted.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = [
    "compiled",
    "decay_tape",
    "delay_line",
    "delayed_convolution",
    "delayed_linear",
    "derivatives",
    "dispatch",
    "draws",
    "dynamics",
    "eager",
    "engine",
    "engine_base",
    "event_gradients",
    "exact",
    "filtered_linear",
    "inputs",
    "leaky_step",
    "recurrence",
    "reference",
    "running_sum",
    "second_differences",
    "step_tape",
    "surrogates",
    "taps",
    "tents",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
