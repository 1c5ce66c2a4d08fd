"""The former place of :mod:`delaykit.functional.engine_base`, whose names are found here, too."""

from delaykit.functional.engine_base import (
    Engine,
    SegmentParameters,
    Stepper,
    bits_of,
    computes_with,
    frozen,
    memory_comparison,
    same_bytes,
    same_values,
    version_of,
)

__all__ = [
    "Engine",
    "SegmentParameters",
    "Stepper",
    "bits_of",
    "computes_with",
    "frozen",
    "memory_comparison",
    "same_bytes",
    "same_values",
    "version_of",
]
