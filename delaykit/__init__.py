"""delaykit adds time to the synapses of existing spiking networks: delays, heterogeneity, pruning, in one call.

>>> import delaykit as dk
>>> dk.FreeDelay("axonal", max_delay=25).granularity
'axonal'

Every public name is imported on first use, so ``import delaykit`` loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from delaykit.attaching.adapter import NeuronAdapter as NeuronAdapter
    from delaykit.delays import FreeDelay as FreeDelay
    from delaykit.errors import CheckpointError as CheckpointError
    from delaykit.errors import ConfigError as ConfigError
    from delaykit.errors import DataError as DataError
    from delaykit.errors import DelaykitError as DelaykitError
    from delaykit.errors import DelayRangeError as DelayRangeError
    from delaykit.errors import HistoryError as HistoryError
    from delaykit.errors import PluginError as PluginError
    from delaykit.errors import ShapeError as ShapeError
    from delaykit.errors import TrainingError as TrainingError
    from delaykit.errors import UnknownNameError as UnknownNameError
    from delaykit.errors import WrapError as WrapError
    from delaykit.functional.dispatch import backend as backend
    from delaykit.hookspecs import hookimpl as hookimpl
    from delaykit.interfaces import ComponentConfig as ComponentConfig
    from delaykit.interfaces import Delay as Delay
    from delaykit.interfaces import Heterogeneity as Heterogeneity
    from delaykit.interfaces import PointDelay as PointDelay
    from delaykit.interfaces import Pruning as Pruning
    from delaykit.interfaces import PruningReport as PruningReport
    from delaykit.interfaces import Site as Site
    from delaykit.planning.plan import Plan as Plan
    from delaykit.planning.plan import plan as plan
    from delaykit.planning.rules import At as At
    from delaykit.planning.rules import Recurrent as Recurrent
    from delaykit.records import API_VERSION as API_VERSION
    from delaykit.records import Component as Component
    from delaykit.registry import citation as citation
    from delaykit.training import advance_ as advance_
    from delaykit.training import attach as attach
    from delaykit.training import discretized as discretized
    from delaykit.training import finalize_ as finalize_
    from delaykit.training import param_groups as param_groups
    from delaykit.wrapping.apply import unwrap_ as unwrap_
    from delaykit.wrapping.apply import wrap as wrap
    from delaykit.wrapping.apply import wrap_ as wrap_
    from delaykit.wrapping.checkpoint import load as load
    from delaykit.wrapping.checkpoint import save as save
    from delaykit.wrapping.controls import Wrapped as Wrapped
    from delaykit.wrapping.controls import detach as detach
    from delaykit.wrapping.controls import disabled as disabled
    from delaykit.wrapping.controls import reset as reset
    from delaykit.wrapping.controls import status as status
    from delaykit.wrapping.controls import wrapped_sites as wrapped_sites
    from delaykit.wrapping.rollout import rollout as rollout

__version__ = "0.1.0"

_NAMES_OF = {
    "delaykit.wrapping.apply": "unwrap_ wrap wrap_",
    "delaykit.wrapping.checkpoint": "load save",
    "delaykit.wrapping.controls": "Wrapped detach disabled reset status wrapped_sites",
    "delaykit.planning.plan": "Plan plan",
    "delaykit.wrapping.rollout": "rollout",
    "delaykit.planning.rules": "At Recurrent",
    "delaykit.delays": "FreeDelay",
    "delaykit.training": "param_groups attach advance_ discretized finalize_",
    "delaykit.functional.dispatch": "backend",
    "delaykit.interfaces": "Delay PointDelay Heterogeneity Pruning PruningReport ComponentConfig Site",
    "delaykit.attaching.adapter": "NeuronAdapter",
    "delaykit.records": "Component API_VERSION",
    "delaykit.errors": "DelaykitError ConfigError ShapeError DelayRangeError UnknownNameError PluginError HistoryError "
    "TrainingError CheckpointError DataError WrapError",
    "delaykit.hookspecs": "hookimpl",
    "delaykit.registry": "citation",
}
_HOME = {name: module for module, names in _NAMES_OF.items() for name in names.split()}
_SUBMODULES = ("errors", "functional", "interfaces", "kernels", "plotting", "testing")

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    if name in _SUBMODULES:
        return importlib.import_module(f"delaykit.{name}")
    from delaykit.names import missing_attribute

    raise AttributeError(missing_attribute(name, __all__))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})
