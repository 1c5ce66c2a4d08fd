"""A recurrent layer over a whole sequence: connection and neuron, with one hand-written adjoint."""

from delaykit.functional.recurrence.operator import RolloutState, rollout, rollout_generic

__all__ = ["RolloutState", "rollout", "rollout_generic"]
