"""Multi-delay weights: a connection with a weight for each synapse and each delay, and a memory made of them.

>>> from delaykit_motifs import Motif
>>> Motif(depth=41).depth
41

Every public name is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from delaykit_motifs.config import Motif as Motif
    from delaykit_motifs.delay import MotifDelay as MotifDelay
    from delaykit_motifs.operators import tapped_correlation as tapped_correlation
    from delaykit_motifs.operators import tapped_linear as tapped_linear

__version__ = "0.1.0"

_NAMES_OF = {
    "config": "Motif",
    "delay": "MotifDelay",
    "operators": "tapped_correlation tapped_linear",
}
_HOME = {name: module for module, names in _NAMES_OF.items() for name in names.split()}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
