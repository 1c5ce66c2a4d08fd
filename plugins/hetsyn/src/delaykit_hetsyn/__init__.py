"""A time constant for each synapse of a spiking network (HetSyn).

>>> from delaykit_hetsyn import HetSyn
>>> HetSyn().granularity
'synaptic'

Every public name is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from delaykit_hetsyn.config import HetSyn as HetSyn

__version__ = "0.1.0"

_NAMES_OF = {
    "config": "HetSyn",
}
_HOME = {name: module for module, names in _NAMES_OF.items() for name in names.split()}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
