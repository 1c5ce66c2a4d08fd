"""Synaptic delays from positions of neurons in space, learned.

>>> from delaykit_spatial import Spatial
>>> Spatial(dims=2, pre="input", post="hidden").floor
0.01

Every public name is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from delaykit_spatial.config import Spatial as Spatial
    from delaykit_spatial.delay import SpatialDelay as SpatialDelay
    from delaykit_spatial.geometry import Torus as Torus
    from delaykit_spatial.geometry import register_metric as register_metric

__version__ = "0.1.0"

_NAMES_OF = {
    "config": "Spatial",
    "delay": "SpatialDelay",
    "geometry": "Torus register_metric",
}
_HOME = {name: module for module, names in _NAMES_OF.items() for name in names.split()}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
