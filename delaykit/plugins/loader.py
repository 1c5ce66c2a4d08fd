"""Load plugins one by one, so that a broken one is reported and stops nobody else.

pluggy's own entry-point loader raises at the first import that fails. This one sorts plugins by name and gives each a
:class:`PluginStatus`; what a plugin registered before it failed is taken back.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

import pluggy

import delaykit.plugins.builtins as builtins
import delaykit.plugins.hookspecs as hookspecs
from delaykit.errors import DelaykitError, PluginError
from delaykit.names import OFFICIAL, nearest
from delaykit.plugins.records import API_VERSION, BACKENDS, DEVICES, KINDS, Component, Operator

GROUP = "delaykit"
CORE = "builtin"


@dataclasses.dataclass(frozen=True)
class PluginSource:
    """Where a plugin comes from: its name, a function that imports it, and the distribution that carries it."""

    name: str
    load: Callable[[], Any]
    distribution: str = ""
    version: str = ""

    @property
    def owner(self) -> str:
        """The name for messages, with the distribution where it is known."""
        return f"plugin {self.name!r}" + (f" (of {self.distribution})" if self.distribution else "")


@dataclasses.dataclass
class PluginStatus:
    """One row of ``delaykit plugins``: ``state`` is ``ok``, ``disabled``, ``missing`` or ``broken``."""

    name: str
    state: str
    distribution: str = ""
    version: str = ""
    detail: str = ""
    traceback: str = ""
    components: tuple[Component, ...] = ()
    operators: tuple[Operator, ...] = ()


def installed_sources() -> list[PluginSource]:
    """List the plugins that installed distributions name in the entry-point group ``delaykit``."""
    sources = []
    for entry in importlib.metadata.entry_points(group=GROUP):
        name, version = (entry.dist.name, entry.dist.version) if entry.dist else ("", "")
        sources.append(PluginSource(entry.name, entry.load, name, version))
    return sources


class PluginLoader:
    """Loads plugins and keeps what they registered.

    Args:
        sources: plugins to load; the built-in one always comes first.
        environ: ``DELAYKIT_PLUGINS`` (load only these) and ``DELAYKIT_DISABLE`` (never load these), names separated
            by commas.

    Example:
        >>> loader = PluginLoader([], {})
        >>> [(s.name, s.state) for s in loader.statuses]
        [('builtin', 'ok')]
    """

    def __init__(self, sources: Iterable[PluginSource], environ: Mapping[str, str]) -> None:
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self.components: dict[tuple[str, str], Component] = {}
        self.operators: dict[tuple[str, str], Operator] = {}
        self.statuses: list[PluginStatus] = []
        self._owners: dict[tuple[str, ...], str] = {}
        self._sources: dict[str, PluginSource] = {}
        self._load(PluginSource(CORE, lambda: builtins, "delaykit"))
        sources = sorted(sources, key=lambda source: (source.name, source.distribution))
        only, disabled = _names(environ.get("DELAYKIT_PLUGINS")), _names(environ.get("DELAYKIT_DISABLE")) or set()
        for source in sources:
            if source.name in disabled or (only is not None and source.name not in only):
                reason = "DELAYKIT_DISABLE" if source.name in disabled else "DELAYKIT_PLUGINS"
                row = PluginStatus(source.name, "disabled", source.distribution, source.version, f"by {reason}")
                self.statuses.append(row)
            else:
                self._load(source)
        known = {source.name for source in sources} | {CORE}
        for name in sorted(((only or set()) | disabled) - known):
            hint = f"; pip install delaykit-{name}" if name in OFFICIAL else nearest(name, known)
            self.statuses.append(PluginStatus(name, "missing", detail=f"not installed{hint}"))

    def implementing(self, hook: str) -> list[str]:
        """Names of the loaded plugins that implement ``hook``, in order."""
        return [
            name
            for name, plugin in sorted(self.manager.list_name_plugin())
            if any(caller.name == hook for caller in self.manager.get_hookcallers(plugin) or ())
        ]

    def call(self, name: str, hook: str, **arguments: Any) -> list[Any]:
        """Call ``hook`` of one plugin and return its result, an iterable of records or rows, as one list."""
        plugin = self.manager.get_plugin(name)
        others = [other for other in self.manager.get_plugins() if other is not plugin]
        results = self.manager.subset_hook_caller(hook, remove_plugins=others)(**arguments)
        return [item for result in results for item in result]

    @contextlib.contextmanager
    def isolated(self, name: str) -> Iterator[None]:
        """Turn whatever a plugin raises in the block into its status ``broken``."""
        try:
            yield
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            _mark_broken(self.status(name), error)

    def status(self, name: str) -> PluginStatus:
        """Return the row of a loaded plugin; a later one that wanted the same name comes after it."""
        return next(status for status in self.statuses if status.name == name)

    def _load(self, source: PluginSource) -> None:
        status = PluginStatus(source.name, "ok", source.distribution, source.version)
        earlier = self._sources.get(source.name)
        try:
            if earlier is not None:
                found = f"a name already taken by {earlier.owner}"
                raise PluginError(source.owner, found, "one plugin a name", "uninstall one of them")
            self._sources[source.name] = source
            plugin = source.load()
            _check_interface(source, plugin)
            self.manager.register(plugin, name=source.name)
            _check_hook_names(source, plugin, self.manager)
            components = self._check_components(source, self.call(source.name, "delaykit_components"))
            operators = self._check_operators(source, self.call(source.name, "delaykit_operators"))
            status.components, status.operators = components, operators
        except KeyboardInterrupt:  # of the user, who wants all to stop
            raise
        except BaseException as error:  # SystemExit, GeneratorExit, or a class of its own: no plugin takes all down
            if earlier is None and self.manager.has_plugin(source.name):
                self.manager.unregister(name=source.name)
            _mark_broken(status, error)
        for record in status.components:
            self.components[record.kind, record.name] = record
            self._owners[record.kind, record.name] = source.owner
        for operator in status.operators:
            self.operators[operator.name, operator.backend] = operator
            self._owners["operator", operator.name, operator.backend] = source.owner
        self.statuses.append(status)

    def _check_components(self, source: PluginSource, found: list[Any]) -> tuple[Component, ...]:
        own: set[tuple[str, ...]] = set()
        for record in found:
            _check_record(source, record)
            self._claim(source, (record.kind, record.name), f"{record.kind} name {record.name!r}", own)
        return tuple(found)

    def _check_operators(self, source: PluginSource, found: list[Any]) -> tuple[Operator, ...]:
        own: set[tuple[str, ...]] = set()
        for record in found:
            _check_operator(source, record)
            name = f"backend {record.backend!r} of the operator {record.name!r}"
            self._claim(source, ("operator", record.name, record.backend), name, own)
        return tuple(found)

    def _claim(self, source: PluginSource, key: tuple[str, ...], name: str, own: set[tuple[str, ...]]) -> None:
        """Refuse a name that is taken, naming both owners."""
        if key in own or key in self._owners:
            owner = source.owner if key in own else self._owners[key]
            raise PluginError(
                source.owner,
                f"the {name}, already taken by {owner}",
                "a name that is unique within its kind",
                "rename it, or disable one plugin with DELAYKIT_DISABLE",
            )
        own.add(key)


def _names(value: str | None) -> set[str] | None:
    return None if value is None else {name.strip() for name in value.split(",") if name.strip()}


def _mark_broken(status: PluginStatus, error: BaseException) -> None:
    status.state = "broken"
    status.detail = str(error) if isinstance(error, DelaykitError) else f"{type(error).__name__}: {error}"
    status.traceback = "".join(traceback.format_exception(error))


def _check_interface(source: PluginSource, plugin: Any) -> None:
    if not isinstance(plugin, ModuleType) and not hasattr(plugin, "delaykit_components"):
        raise PluginError(
            source.owner, f"an entry point to {type(plugin).__name__!r}", "a module", "name a module in the entry point"
        )
    version = getattr(plugin, "DELAYKIT_API", API_VERSION)
    if version != API_VERSION:
        older = isinstance(version, int) and version < API_VERSION
        fix = "upgrade the plugin" if older else "upgrade delaykit"
        raise PluginError(source.owner, f"interface version {version!r}", f"version {API_VERSION}", fix)


def _check_hook_names(source: PluginSource, plugin: Any, manager: pluggy.PluginManager) -> None:
    callers = manager.get_hookcallers(plugin) or []
    hooks = sorted(name for name in vars(hookspecs) if name.startswith("delaykit_"))
    if not callers:
        fix = "mark functions with @delaykit.hookimpl"
        raise PluginError(source.owner, "no hook implementation", "one of " + ", ".join(hooks), fix)
    for caller in callers:
        if not caller.has_spec():
            found = f"an unknown hook {caller.name!r}{nearest(caller.name, hooks)}"
            raise PluginError(source.owner, found, "one of " + ", ".join(hooks), "rename the function")


def _check_record(source: PluginSource, record: Any) -> None:
    if not isinstance(record, Component):
        found = f"{type(record).__name__} {record!r} among its components"
        raise PluginError(source.owner, found, "delaykit.Component records", "yield Component(kind, name, config)")
    if record.kind not in KINDS:
        found = f"kind {record.kind!r} of component {record.name!r}{nearest(str(record.kind), KINDS)}"
        raise PluginError(source.owner, found, "one of " + ", ".join(KINDS), "correct the kind")
    if not isinstance(record.name, str) or not record.name or not _is_target(record.config):
        found = f"component {record.name!r} with config {record.config!r}"
        raise PluginError(source.owner, found, "a name and a string 'package.module:Class'", "correct the record")


def _check_operator(source: PluginSource, record: Any) -> None:
    if not isinstance(record, Operator):
        found = f"{type(record).__name__} {record!r} among its operators"
        raise PluginError(source.owner, found, "delaykit.Operator records", "yield Operator(name, backend, function)")
    if record.backend not in BACKENDS + DEVICES:
        found = f"backend {record.backend!r} of operator {record.name!r}{nearest(str(record.backend), BACKENDS)}"
        raise PluginError(source.owner, found, "one of " + ", ".join(BACKENDS + DEVICES), "correct the backend")
    if not isinstance(record.name, str) or not record.name.isidentifier() or not _is_target(record.function):
        found = f"operator {record.name!r} with function {record.function!r}"
        raise PluginError(source.owner, found, "a name and a string 'package.module:function'", "correct the record")


def _is_target(target: Any) -> bool:
    module, colon, attribute = target.partition(":") if isinstance(target, str) else ("", "", "")
    return bool(colon) and all(part.isidentifier() for part in [*module.split("."), *attribute.split(".")])
