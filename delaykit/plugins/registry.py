"""Components by name: what is installed, the class behind a name, and the paper to cite."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from collections.abc import Callable, Iterable
from typing import Any, Literal

import delaykit
from delaykit.errors import ConfigError, PluginError, UnknownNameError
from delaykit.names import OFFICIAL, PAPERS, nearest, official_plugin
from delaykit.plugins.citations import bibtex
from delaykit.plugins.loader import PluginLoader, installed_sources
from delaykit.plugins.records import KINDS, Component

ITSELF = "The delaykit developers 2026, delaykit: time in the synapses of existing spiking neural networks"


@functools.cache
def loader() -> PluginLoader:
    """Load the installed plugins, once a process; environment variables are read at that moment."""
    return PluginLoader(installed_sources(), os.environ)


def components(kind: str | None = None) -> tuple[Component, ...]:
    """List the registered components, sorted by kind and name.

    Args:
        kind: ``delay``, ``heterogeneity``, ``pruning``, ``adapter`` or ``task``; None for all.

    Raises:
        UnknownNameError: if there is no such kind.

    Example:
        >>> "free" in [c.name for c in components("delay")]
        True
    """
    if kind is not None:
        _check_kind(kind)
    return tuple(record for key, record in sorted(loader().components.items()) if kind in (None, key[0]))


def find(kind: str, name: str) -> Component:
    """Return the record of one component.

    Raises:
        UnknownNameError: with the nearest name, or the package to install.

    Example:
        >>> find("delay", "free").config
        'delaykit.delays:FreeDelay'
    """
    _check_kind(kind)
    record = loader().components.get((kind, name)) if isinstance(name, str) else None
    if record is None:
        names = [c.name for c in components(kind)]
        found = f"no {kind} named {name!r:.200}{nearest(name, names)}"
        raise UnknownNameError("registry", found, f"one of {', '.join(names) or 'none'}", _how_to_get(name))
    return record


def resolve(kind: str, name: str) -> type:
    """Import the config class (or adapter, or task) behind a name; it is imported on first use.

    Args:
        kind: ``delay``, ``heterogeneity``, ``pruning``, ``adapter`` or ``task``.
        name: of the component.

    Raises:
        UnknownNameError: if no component has that name.
        PluginError: if the target cannot be imported.

    Example:
        >>> resolve("delay", "free").__name__
        'FreeDelay'
    """
    record = find(kind, name)
    target = _imported(f"{kind} {name!r}", record.config)
    if not isinstance(target, type):
        found = f"a {type(target).__name__} at {record.config}"
        raise PluginError(f"{kind} {name!r}", found, "a class", "correct the plugin's record")
    return target


def implementation(operator: str, backend: str) -> Callable[..., Any] | None:
    """Import the function that runs an operator in a backend; None where nobody registered one.

    Raises:
        PluginError: if the target cannot be imported.

    Example:
        >>> implementation("tap_filter", "torch").__module__
        'delaykit.functional.delay_line.torch'
    """
    record = loader().operators.get((operator, backend))
    if record is None:
        return None
    function: Callable[..., Any] = _imported(f"operator {operator!r}, backend {backend!r}", record.function)
    return function


def missing_operator(name: str, known: Iterable[str]) -> UnknownNameError:
    """Say that nobody registered an operator; where its plugin is disabled or broken, say that."""
    names = sorted(known)
    for status in loader().statuses:
        if status.state in ("disabled", "broken") and name.startswith(f"{status.name}_"):
            found = f"operator {name!r} of the plugin {status.name!r}, which is {status.state} {status.detail}"
            return UnknownNameError("resolve", found, "the plugin loaded", "enable or mend it; see `delaykit plugins`")
    fix = "yield an Operator record for the backend 'torch' from the hook delaykit_operators"
    return UnknownNameError("resolve", f"operator {name!r}{nearest(name, names)}", f"one of {names}", fix)


def citation(component: Any = "delaykit", *, style: Literal["text", "bibtex"] = "text") -> str:
    """Return the paper to cite for a component, or for all components of a plugin; without one, delaykit itself.

    Args:
        component: a :class:`Component`, a config or its class (anything with ``kind`` and ``name``), or the name of a
            component, of its class, of a plugin, of a public class of an installed plugin, or ``delaykit``.
        style: ``text``, a line; or ``bibtex``, an entry for each paper. What has no paper of its own is delaykit's:
            an entry for it.

    Returns:
        The citation; as text, empty if the component names none. A plugin's papers stand on lines of their own.

    Raises:
        UnknownNameError: if nothing of that name is registered.
        ConfigError: the style is another.

    Example:
        >>> "2306.17670" in citation("free") and citation("FreeDelay") == citation("free")
        True
        >>> citation("free", style="bibtex").splitlines()[0]
        '@inproceedings{free,'
    """
    if not isinstance(style, str) or style not in ("text", "bibtex"):
        fix = "leave style out, or name one of the two"
        raise ConfigError("citation", f"style={style!r:.200}", "'text' or 'bibtex'", fix)
    papers = _papers(component)
    if style == "text":
        return "\n".join(dict.fromkeys(paper for paper in papers.values() if paper))
    cited = {paper: name for name, paper in reversed(papers.items()) if paper}
    entries = [bibtex(name, paper, version=_version(name)) for paper, name in reversed(cited.items())]
    return "\n\n".join(entries) or bibtex("delaykit", ITSELF, version=_version("delaykit"))


def _papers(component: Any) -> dict[str, str]:
    """Return the papers asked for, by the name of their component."""
    if not isinstance(component, str):
        record = component if isinstance(component, Component) else _record_of(component)
        return {record.name: record.paper}
    known = _citable()
    lowered = {name.lower(): papers for name, papers in known.items()}
    if papers := known.get(component) or lowered.get(component.lower()):
        return papers
    names = [name for name in known if name.islower() and not name.endswith("_")]  # classes go by these, too
    found = f"nothing named {component!r:.200}{nearest(component, known)}"
    raise UnknownNameError("citation", found, f"one of {', '.join(names)}", _how_to_get(component))


def _citable() -> dict[str, dict[str, str]]:
    """Return all names that can be cited, each with its papers; of two meanings the plugin's is told."""
    known: dict[str, dict[str, str]] = {}
    for record in components():
        paper = {record.name: record.paper}
        for name in (record.name, record.config.rpartition(":")[2]):
            if not any(known.get(name, {}).values()):  # one name in two kinds: the one with a paper
                known[name] = paper
    for status in loader().statuses:
        papers = {record.name: record.paper for record in status.components}
        if status.name in PAPERS:
            papers.setdefault(status.name, PAPERS[status.name])
        if status.state == "ok" and papers and status.name != "builtin":
            known |= {status.name: papers}
            for name in OFFICIAL.get(status.name, ((), ()))[1]:
                known.setdefault(name, papers)
    return dict(sorted(known.items())) | {"delaykit": {"delaykit": ITSELF}}


def _record_of(component: Any) -> Component:
    kind, name = getattr(component, "kind", None), getattr(component, "name", None)
    if not isinstance(kind, str) or not isinstance(name, str):
        found = f"{component!r:.200}, which has no kind and name"
        raise UnknownNameError("citation", found, "a component, its config or its name", "pass dk.citation('free')")
    return find(kind, name)


def _version(name: str) -> str:
    """Return the version to cite: of delaykit; papers have none."""
    return delaykit.__version__ if name == "delaykit" else ""


def _imported(where: str, path: str) -> Any:
    """Import what ``package.module:attribute`` names."""
    module, _, attribute = path.partition(":")
    try:
        target: Any = importlib.import_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a plugin raises
        raise PluginError(where, f"{type(error).__name__}: {error}", f"{module} to import", _fix_for(error)) from error
    for part in attribute.split("."):
        if not hasattr(target, part):
            raise PluginError(where, f"no {part!r} in {target.__name__}", path, "correct the plugin's record")
        target = getattr(target, part)
    return target


def _check_kind(kind: str) -> None:
    if not isinstance(kind, str) or kind not in KINDS:
        found = f"kind {kind!r:.200}{nearest(kind, KINDS)}"
        raise UnknownNameError("registry", found, f"one of {', '.join(KINDS)}", "correct the kind")


def _fix_for(error: BaseException) -> str:
    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    missing = package and importlib.util.find_spec(package) is None
    return f"install the missing package {package!r}" if missing else "run `delaykit doctor`"


def _how_to_get(name: str) -> str:
    plugin = official_plugin(name)
    if plugin is None:
        return "list what is installed with `delaykit plugins`"
    for status in loader().statuses:
        if status.name == plugin and status.state in ("broken", "disabled"):
            return f"plugin {plugin!r} is installed but {status.state}; see `delaykit plugins`"
        if status.name == plugin and status.state == "ok":
            return "list what is installed with `delaykit plugins`"
    return f"pip install delaykit-{plugin}"
