"""The records a plugin registers and the interface version it speaks. Imports no torch, so entry modules stay light."""

from __future__ import annotations

import dataclasses

API_VERSION = 1
ADAPTER_API = 1  # version of delaykit.NeuronAdapter
KINDS = ("delay", "heterogeneity", "pruning", "adapter", "task")
BACKENDS = ("reference", "torch", "cpu", "gpu")
DEVICES = ("hpu", "maia", "mps", "mtia", "npu", "privateuseone", "xla", "xpu")
"""Kinds of devices besides cpu and cuda, as torch names them; an operator's backend may be named after one."""


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


@dataclasses.dataclass(frozen=True)
class Operator:
    """Which function runs an operator in a backend. It is imported when it first runs.

    Args:
        name: of the operator; a plugin begins those of its own with its own name, ``mine_filter``. It may also bring a
            backend of another's operator that has none: a chip is one file.
        backend: ``torch`` (which every operator needs: it runs on all devices), ``reference`` (plain loops that judge
            the others), ``cpu`` (Numba), ``gpu`` (CUDA, Triton), or a kind of device as torch names it, ``mps``.
        function: ``package.module:function``; all backends of an operator take the same arguments.

    Example:
        >>> Operator("mine_filter", "cpu", "delaykit_mine.numba:mine_filter").backend
        'cpu'
    """

    name: str
    backend: str
    function: str
