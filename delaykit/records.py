"""The record a plugin registers and the interface version it speaks. Imports no torch, so entry modules stay light."""

from __future__ import annotations

import dataclasses

API_VERSION = 1
ADAPTER_API = 1  # version of delaykit.NeuronAdapter
KINDS = ("delay", "heterogeneity", "pruning", "adapter", "task")


@dataclasses.dataclass(frozen=True)
class Component:
    """What a plugin registers: a name and where its config lives. No import happens until it is used.

    Args:
        kind: ``delay``, ``heterogeneity``, ``pruning``, ``adapter`` or ``task``.
        name: unique within its kind, e.g. ``delrec``.
        config: ``package.module:Class`` of the :class:`~delaykit.interfaces.ComponentConfig` (or adapter, or task).
        summary: one line for ``delaykit plugins``.
        paper: citation, e.g. ``Queant et al. 2025, arXiv 2509.24852``.

    Example:
        >>> Component("delay", "free", "delaykit.delays:FreeDelay", "a fixed or learned delay").name
        'free'
    """

    kind: str
    name: str
    config: str
    summary: str = ""
    paper: str = ""
