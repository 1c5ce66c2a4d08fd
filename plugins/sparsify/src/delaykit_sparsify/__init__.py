"""Dynamic sparsification, and sparse inference that is smaller and faster in fact.

>>> from delaykit_sparsify import DynamicSparsity
>>> DynamicSparsity(0.9).sparsity
0.9

Every public name is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from delaykit_sparsify.compact import CompactDelay as CompactDelay
    from delaykit_sparsify.compact import Compacted as Compacted
    from delaykit_sparsify.compact import CompactLinear as CompactLinear
    from delaykit_sparsify.compact import CompactReport as CompactReport
    from delaykit_sparsify.compact import compact_ as compact_
    from delaykit_sparsify.config import DynamicSparsity as DynamicSparsity
    from delaykit_sparsify.graphs import Connectivity as Connectivity
    from delaykit_sparsify.graphs import connectivity as connectivity
    from delaykit_sparsify.graphs import kept_by_delay as kept_by_delay
    from delaykit_sparsify.pruning import DynamicPruning as DynamicPruning
    from delaykit_sparsify.report import ParameterReport as ParameterReport
    from delaykit_sparsify.report import SiteParameters as SiteParameters
    from delaykit_sparsify.report import Turnover as Turnover
    from delaykit_sparsify.report import masks as masks
    from delaykit_sparsify.report import parameter_report as parameter_report
    from delaykit_sparsify.report import published_count as published_count
    from delaykit_sparsify.report import turnover as turnover
    from delaykit_sparsify.sparse import Arrivals as Arrivals
    from delaykit_sparsify.sparse import sparse_filter as sparse_filter
    from delaykit_sparsify.sparsifier import Sparsifier as Sparsifier
    from delaykit_sparsify.sparsifier import connection_weights as connection_weights

__version__ = "0.1.0"

_NAMES_OF = {
    "compact": "CompactDelay CompactLinear CompactReport Compacted compact_",
    "config": "DynamicSparsity",
    "graphs": "Connectivity connectivity kept_by_delay",
    "pruning": "DynamicPruning",
    "report": "ParameterReport SiteParameters Turnover masks parameter_report published_count turnover",
    "sparse": "Arrivals sparse_filter",
    "sparsifier": "Sparsifier connection_weights",
}
_HOME = {name: module for module, names in _NAMES_OF.items() for name in names.split()}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
