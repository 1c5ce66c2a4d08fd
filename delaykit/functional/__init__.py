"""Pure tensor functions: operators know tensors and nothing else. One room an operator, what they share beside them.

A room holds the contract (``operator.py``), the judge (``reference.py``) and one file for each backend; what others may
use is in its ``__all__``: ``from delaykit.functional.delayed_linear import delayed_linear``. The room ``llvm`` is the
Numba backends' alone, and may be deleted.
"""

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
    "event_gradients",
    "exact",
    "filtered_linear",
    "inputs",
    "recurrence",
    "reference",
    "running_sum",
    "second_differences",
    "step_tape",
    "surrogates",
    "taps",
    "tents",
]
