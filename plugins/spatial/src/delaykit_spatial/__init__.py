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
    from delaykit_spatial.analysis import channel_order as channel_order
    from delaykit_spatial.analysis import communities as communities
    from delaykit_spatial.analysis import degree_distribution as degree_distribution
    from delaykit_spatial.analysis import equal_weights_ as equal_weights_
    from delaykit_spatial.analysis import kept_by_delay as kept_by_delay
    from delaykit_spatial.config import Spatial as Spatial
    from delaykit_spatial.connection import SpatialConnection as SpatialConnection
    from delaykit_spatial.connection import share_positions_ as share_positions_
    from delaykit_spatial.delay import SpatialDelay as SpatialDelay
    from delaykit_spatial.export import Placement as Placement
    from delaykit_spatial.export import export_positions as export_positions
    from delaykit_spatial.export import read_positions as read_positions
    from delaykit_spatial.geometry import Torus as Torus
    from delaykit_spatial.geometry import register_metric as register_metric
    from delaykit_spatial.history import PositionHistory as PositionHistory
    from delaykit_spatial.neurons import LIF as LIF
    from delaykit_spatial.neurons import AdEx as AdEx
    from delaykit_spatial.pictures import channel_matrix as channel_matrix
    from delaykit_spatial.pictures import delay_against_distance as delay_against_distance
    from delaykit_spatial.pictures import kept_fraction as kept_fraction
    from delaykit_spatial.pictures import position_map as position_map
    from delaykit_spatial.recipes import spatial_param_groups as spatial_param_groups
    from delaykit_spatial.report import late_arrivals as late_arrivals
    from delaykit_spatial.report import links as links
    from delaykit_spatial.report import parameter_accounting as parameter_accounting
    from delaykit_spatial.report import populations as populations
    from delaykit_spatial.report import spatial_report as spatial_report

__version__ = "0.1.0"

_NAMES_OF = {
    "analysis": "channel_order communities degree_distribution equal_weights_ kept_by_delay",
    "config": "Spatial",
    "connection": "SpatialConnection share_positions_",
    "delay": "SpatialDelay",
    "export": "Placement export_positions read_positions",
    "geometry": "Torus register_metric",
    "history": "PositionHistory",
    "neurons": "AdEx LIF",
    "pictures": "channel_matrix delay_against_distance kept_fraction position_map",
    "report": "late_arrivals links parameter_accounting populations spatial_report",
    "recipes": "spatial_param_groups",
}
_HOME = {name: module for module, names in _NAMES_OF.items() for name in names.split()}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
