"""Wrap existing models: plan, apply, control, save, and undo."""

from delaykit.wrapping.apply import unwrap_, wrap, wrap_
from delaykit.wrapping.checkpoint import load, save
from delaykit.wrapping.controls import Status, detach, disabled, reset, status
from delaykit.wrapping.plan import Plan, plan
from delaykit.wrapping.rollout import rollout
from delaykit.wrapping.rules import At, Recurrent

__all__ = [
    "At",
    "Plan",
    "Recurrent",
    "Status",
    "detach",
    "disabled",
    "load",
    "plan",
    "reset",
    "rollout",
    "save",
    "status",
    "unwrap_",
    "wrap",
    "wrap_",
]
