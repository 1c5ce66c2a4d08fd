"""Learned delays in recurrent (DelRec) and feed-forward (DCLS) connections of spiking networks.

>>> from delaykit_delrec import DCLS, DelRec
>>> DelRec(max_delay=30).sigma, DCLS(25).version
(10.0, 'gauss')

Every public name is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from delaykit_delrec.config import DelRec as DelRec
    from delaykit_delrec.dcls import DCLS as DCLS
    from delaykit_delrec.history import DelayHistory as DelayHistory
    from delaykit_delrec.pictures import bounds_curve as bounds_curve
    from delaykit_delrec.pictures import delay_evolution as delay_evolution
    from delaykit_delrec.pictures import movement_curve as movement_curve
    from delaykit_delrec.pictures import spread_curve as spread_curve
    from delaykit_delrec.published import Published as Published
    from delaykit_delrec.published import load_published_ as load_published_
    from delaykit_delrec.published import read_published as read_published
    from delaykit_delrec.recipes import RECIPES as RECIPES
    from delaykit_delrec.recipes import Recipe as Recipe
    from delaykit_delrec.recipes import spike_penalty as spike_penalty
    from delaykit_delrec.rounding import Gap as Gap
    from delaykit_delrec.rounding import discretization_gap as discretization_gap

__version__ = "0.1.0"

_NAMES_OF = {
    "config": "DelRec",
    "dcls": "DCLS",
    "history": "DelayHistory",
    "pictures": "bounds_curve delay_evolution movement_curve spread_curve",
    "published": "Published load_published_ read_published",
    "recipes": "RECIPES Recipe spike_penalty",
    "rounding": "Gap discretization_gap",
}
_HOME = {name: module for module, names in _NAMES_OF.items() for name in names.split()}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
