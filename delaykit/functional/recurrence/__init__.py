"""A recurrent layer over a whole sequence: connection and neuron, with one hand-written adjoint."""

from delaykit.functional.recurrence.connection import RecurrentConnection
from delaykit.functional.recurrence.connection.base import Fading, Inputs
from delaykit.functional.recurrence.operator import rollout
from delaykit.functional.recurrence.state import Recurrence, RolloutState
from delaykit.functional.recurrence.step_loop import rollout_generic

__all__ = ["Fading", "Inputs", "Recurrence", "RecurrentConnection", "RolloutState", "rollout", "rollout_generic"]
