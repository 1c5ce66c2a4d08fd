"""Learning with exact spike times, many spikes per neuron, and delays.

>>> from delaykit_timing import Events, MultiSpikeLIF
>>> layer = MultiSpikeLIF(2, 1, tau_synapse=0.8)
>>> layer(Events.of([[0.1, 0.2]], [[0, 1]], size=2)).size
1

Every public name is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from delaykit_timing.discrete import SpikeTimeReport as SpikeTimeReport
    from delaykit_timing.discrete import compare as compare
    from delaykit_timing.discrete import to_discrete as to_discrete
    from delaykit_timing.discrete import to_events as to_events
    from delaykit_timing.dynamics import Dynamics as Dynamics
    from delaykit_timing.dynamics import membrane_response as membrane_response
    from delaykit_timing.encoders import first_spike_encode as first_spike_encode
    from delaykit_timing.encoders import latency_encode as latency_encode
    from delaykit_timing.events import Events as Events
    from delaykit_timing.events import from_raster as from_raster
    from delaykit_timing.events import from_tonic as from_tonic
    from delaykit_timing.events import to_raster as to_raster
    from delaykit_timing.layer import MultiSpikeLIF as MultiSpikeLIF
    from delaykit_timing.layer import PotentialReadout as PotentialReadout
    from delaykit_timing.losses import first_spike_hinge as first_spike_hinge
    from delaykit_timing.losses import output_norm as output_norm
    from delaykit_timing.losses import potential_cross_entropy as potential_cross_entropy
    from delaykit_timing.losses import spike_count_penalty as spike_count_penalty
    from delaykit_timing.losses import wanted_direction as wanted_direction
    from delaykit_timing.network import TimingNet as TimingNet
    from delaykit_timing.network import TimingOutput as TimingOutput
    from delaykit_timing.network import project_after_steps as project_after_steps
    from delaykit_timing.operator import SpikeTimes as SpikeTimes
    from delaykit_timing.operator import spike_times as spike_times
    from delaykit_timing.traces import membrane_trace as membrane_trace

__version__ = "0.1.0"

_NAMES_OF = {
    "discrete": "SpikeTimeReport compare to_discrete to_events",
    "dynamics": "Dynamics membrane_response",
    "encoders": "first_spike_encode latency_encode",
    "events": "Events from_raster from_tonic to_raster",
    "layer": "MultiSpikeLIF PotentialReadout",
    "losses": "first_spike_hinge output_norm potential_cross_entropy spike_count_penalty wanted_direction",
    "network": "TimingNet TimingOutput project_after_steps",
    "operator": "SpikeTimes spike_times",
    "traces": "membrane_trace",
}
_HOME = {name: module for module, names in _NAMES_OF.items() for name in names.split()}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
