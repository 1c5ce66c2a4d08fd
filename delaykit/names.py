"""Answer a name that is not there: the nearest one that is, and the package to install. Imports nothing of delaykit."""

from __future__ import annotations

import difflib
import importlib.util
import json
import pkgutil
from collections.abc import Iterable

_SAID = json.loads(pkgutil.get_data(__package__, "official.json") or b"")  # gathered from the plugins themselves
# Plugin -> (component names, public Python names to begin with); a test compares them with the plugins of this tree.
OFFICIAL: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    plugin: (tuple(said["components"]), tuple(said["names"])) for plugin, said in _SAID.items()
}
# What to cite for a plugin that registers no component.
PAPERS: dict[str, str] = {plugin: said["paper"] for plugin, said in _SAID.items() if "paper" in said}


def nearest(name: str, candidates: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest candidate, or an empty string.

    Example:
        >>> nearest("axonl", ["axonal", "dendritic"])
        "; did you mean 'axonal'?"
    """
    lowered = {candidate.lower(): candidate for candidate in candidates}
    close = difflib.get_close_matches(str(name).lower(), lowered, n=1)
    return f"; did you mean {lowered[close[0]]!r}?" if close else ""


def official_plugin(name: str) -> str | None:
    """Return the official plugin that a plugin, component or Python name belongs to.

    Example:
        >>> official_plugin("DelRec")
        'delrec'
    """
    lowered = str(name).lower()
    for plugin, (components, public) in OFFICIAL.items():
        if lowered == plugin or lowered in components or lowered in (known.lower() for known in public):
            return plugin
    return None


def importable(plugin: str) -> bool:
    """Say whether the package of an official plugin is there; it is not imported."""
    return importlib.util.find_spec(f"delaykit_{plugin}") is not None


def missing_attribute(name: str, candidates: Iterable[str]) -> str:
    """Say that the package ``delaykit`` has no such attribute, and what to do about it."""
    message = f"module 'delaykit' has no attribute {name!r}"
    plugin = official_plugin(name)
    if plugin is None:
        return message + nearest(name, candidates)
    public = OFFICIAL[plugin][1]
    wanted = name if name in public else ", ".join(public)
    install = "" if importable(plugin) else f"`pip install delaykit-{plugin}`, then "
    return f"{message}; {install}`from delaykit_{plugin} import {wanted}`"
