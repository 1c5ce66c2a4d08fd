"""The adapter door: everything that the author of an adapter for another library needs, in one place.

An adapter is one class, :class:`NeuronAdapter`: it finds the connections and neurons of one library and knows where
their state lives. delaykit's own are in the folders beside this file; yours is a plugin that imports from here and from
:mod:`delaykit`, and nothing else. ``docs/howto/write_an_adapter.md`` writes one from first line to last, and
:class:`delaykit.testing.AdapterConformance` judges it.
"""

from delaykit.attaching.adapter import Neuron, NeuronAdapter, Spot
from delaykit.attaching.attachment import Attachment
from delaykit.attaching.clocks import Timing
from delaykit.attaching.connection.calls import step_connection
from delaykit.attaching.connection.loop import LOOP, RecurrentLoop
from delaykit.attaching.connection.mixins import attach_connection_
from delaykit.attaching.connection.products import CONVOLUTIONS, product_of
from delaykit.attaching.exact_gradients.neurons import ExactNeuron, Slopes, refusal
from delaykit.attaching.fused_parts import FusedParts
from delaykit.attaching.history.connection_history import History
from delaykit.attaching.neuron.time_constants import learned
from delaykit.attaching.neuron_mixins import (
    CarriedNeuron,
    FollowedNeuron,
    add_loop_,
    attach_slot_,
    follow_,
    loop_of,
    make_exact_,
    synapses_of,
)
from delaykit.attaching.neuron_reading import ReadsNeurons
from delaykit.attaching.retyping import Undo, give_class_, has_mixin, library_class, original_class, retype_
from delaykit.attaching.watches import NeuronWatch
from delaykit.attaching.wiring import Wiring, keep_, kept, wire_, wiring_of
from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.recurrence.state import RolloutState
from delaykit.plugins.records import ADAPTER_API
from delaykit.synapse import Product, Synapse

__all__ = [
    "ADAPTER_API",
    "CONVOLUTIONS",
    "LOOP",
    "Attachment",
    "CarriedNeuron",
    "ExactNeuron",
    "FollowedNeuron",
    "FusedParts",
    "History",
    "LIFDynamics",
    "Neuron",
    "NeuronAdapter",
    "NeuronWatch",
    "Product",
    "ReadsNeurons",
    "RecurrentLoop",
    "RolloutState",
    "Slopes",
    "Spot",
    "Synapse",
    "Timing",
    "Undo",
    "Wiring",
    "add_loop_",
    "attach_connection_",
    "attach_slot_",
    "follow_",
    "give_class_",
    "has_mixin",
    "keep_",
    "kept",
    "learned",
    "library_class",
    "loop_of",
    "make_exact_",
    "original_class",
    "product_of",
    "refusal",
    "retype_",
    "step_connection",
    "synapses_of",
    "wire_",
    "wiring_of",
]
