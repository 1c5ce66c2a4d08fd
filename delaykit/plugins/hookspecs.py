"""The hooks a plugin may implement. An entry module imports this through ``delaykit`` and must import no torch.

A plugin is a module named by an entry point of the group ``delaykit``:

.. code-block:: toml

    [project.entry-points.delaykit]
    mine = "delaykit_mine.plugin"

It may set ``DELAYKIT_API`` to the interface version it was written for (:data:`delaykit.API_VERSION`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

from delaykit.plugins.records import Component, Operator

if TYPE_CHECKING:
    import click

PROJECT = "delaykit"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def delaykit_components() -> Iterable[Component]:  # type: ignore[empty-body]
    """Yield one record for each delay, heterogeneity, pruning, adapter or task of the plugin.

    Example:
        >>> from delaykit import Component, hookimpl
        >>> @hookimpl
        ... def delaykit_components():
        ...     yield Component("delay", "mine", "delaykit_mine.config:Mine", "one learned delay per layer")
    """


@hookspec
def delaykit_operators() -> Iterable[Operator]:  # type: ignore[empty-body]
    """Yield one record for each operator of the plugin and each backend that runs it, or for a backend of another's.

    Example:
        >>> from delaykit import Operator, hookimpl
        >>> @hookimpl
        ... def delaykit_operators():
        ...     yield Operator("mine_filter", "reference", "delaykit_mine.reference:mine_filter")
        ...     yield Operator("mine_filter", "torch", "delaykit_mine.torch:mine_filter")
        ...     yield Operator("mine_filter", "cpu", "delaykit_mine.numba:mine_filter")
    """


@hookspec
def delaykit_commands(cli: click.Group) -> None:
    """Add commands to the ``delaykit`` command line. Import what a command needs inside its body.

    Args:
        cli: the root ``click.Group``.

    Example:
        >>> from delaykit import hookimpl
        >>> @hookimpl
        ... def delaykit_commands(cli):
        ...     @cli.command("hello")
        ...     def hello():
        ...         "Say hello."
    """


@hookspec
def delaykit_health() -> Iterable[tuple[str, bool, str]]:  # type: ignore[empty-body]
    """Yield rows ``(what, is it fine, detail or what to install)`` for ``delaykit doctor``.

    Example:
        >>> from delaykit import hookimpl
        >>> @hookimpl
        ... def delaykit_health():
        ...     yield "mine: data folder", True, "found"
    """
