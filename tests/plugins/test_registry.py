"""The registry and its loader: plugins are isolated, clashes refused, unknown names answered."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import pytest

import delaykit
from delaykit import Component, Operator, PluginError, UnknownNameError, hookimpl
from delaykit.names import OFFICIAL
from delaykit.plugins import registry
from delaykit.plugins.loader import PluginLoader, PluginSource


def plugin_of(*records: Any, **attributes: Any) -> types.ModuleType:
    """A plugin module that yields ``records`` as its components."""
    module = types.ModuleType("plugin")

    @hookimpl
    def delaykit_components() -> Any:
        yield from records

    module.delaykit_components = delaykit_components  # type: ignore[attr-defined]
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


def source(name: str, module: Any, distribution: str = "") -> PluginSource:
    return PluginSource(name, module if isinstance(module, Callable) else lambda: module, distribution)  # type: ignore


def load(*sources: PluginSource, **environ: str) -> PluginLoader:
    return PluginLoader(sources, environ)


def record(name: str, kind: str = "delay") -> Component:
    return Component(kind, name, f"collections:{name.capitalize()}")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., PluginLoader]:
    """Put chosen plugins in place of the installed ones."""

    def install(*sources: PluginSource) -> PluginLoader:
        loader = load(*sources)
        monkeypatch.setattr(registry, "loader", lambda: loader)
        return loader

    return install


GOOD = source("good", plugin_of(record("good")))


def raises(error: BaseException) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail


def half_way() -> Any:
    yield record("first")
    raise RuntimeError("second component failed")


def hooks(**functions: Any) -> types.ModuleType:
    module = types.ModuleType("plugin")
    for name, function in functions.items():
        function.__name__ = name
        setattr(module, name, hookimpl(function))
    return module


def runs(*operators: Any) -> types.ModuleType:
    return hooks(delaykit_operators=lambda: operators)


BROKEN = {
    "import error": (raises(ImportError("no module named 'nothing'")), "ImportError: no module named 'nothing'"),
    "exits at import": (raises(SystemExit(3)), "SystemExit: 3"),
    "leaves as nobody expects": (raises(type("Gone", (BaseException,), {})("away")), "Gone: away"),
    "hook raises": (hooks(delaykit_components=raises(ZeroDivisionError("oops"))), "ZeroDivisionError: oops"),
    "hook fails half way": (hooks(delaykit_components=half_way), "RuntimeError: second component failed"),
    "hook returns no list": (hooks(delaykit_components=lambda: 3), "TypeError"),
    "wrong type": (plugin_of(record("x"), "delrec"), "str 'delrec' among its components"),
    "wrong kind": (plugin_of(record("x"), Component("delays", "y", "a:B")), "did you mean 'delay'?"),
    "config without class": (plugin_of(record("x"), Component("delay", "y", "a.b")), "'package.module:Class'"),
    "config is a class": (plugin_of(record("x"), Component("delay", "y", dict)), "'package.module:Class'"),  # type: ignore[arg-type]
    "no name": (plugin_of(record("x"), Component("delay", "", "a:B")), "a name and a string"),
    "name twice": (plugin_of(record("x"), record("x")), "'x', already taken by plugin 'bad'"),
    "takes a built-in name": (
        plugin_of(record("x"), record("free")),
        "already taken by plugin 'builtin' (of delaykit)",
    ),
    "operator of a wrong type": (runs(record("x")), "Component"),
    "operator of no backend": (runs(Operator("x_sum", "cuda", "a:b")), "backend 'cuda' of operator 'x_sum'"),
    "operator without function": (runs(Operator("x_sum", "cpu", "a.b")), "'package.module:function'"),
    "operator twice": (runs(*[Operator("x_sum", "cpu", "a:b")] * 2), "backend 'cpu' of the operator 'x_sum', already"),
    "takes a core operator": (
        runs(Operator("x_sum", "torch", "a:b"), Operator("tap_filter", "gpu", "a:b")),
        "the backend 'gpu' of the operator 'tap_filter', already taken by plugin 'builtin' (of delaykit)",
    ),
    "newer interface": (plugin_of(record("x"), DELAYKIT_API=2), "upgrade delaykit"),
    "older interface": (plugin_of(record("x"), DELAYKIT_API=0), "upgrade the plugin"),
    "odd interface": (plugin_of(record("x"), DELAYKIT_API="1"), "interface version '1'; expected version 1"),
    "no hooks": (types.ModuleType("empty"), "no hook implementation"),
    "unknown hook": (hooks(delaykit_component=lambda: []), "did you mean 'delaykit_components'?"),
    "wrong argument": (hooks(delaykit_commands=lambda app: None), "PluginValidationError"),
    "not a module": (source, "expected a module"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_reported_and_leaves_nothing_behind(case: str) -> None:
    plugin, message = BROKEN[case]
    importing = plugin if case in ("import error", "exits at import", "leaves as nobody expects") else lambda: plugin
    loader = load(PluginSource("bad", importing), GOOD)
    bad = loader.status("bad")
    assert bad.state == "broken" and message in bad.detail, bad.detail
    assert "Traceback" in bad.traceback or "Error" in bad.traceback
    assert bad.components == () and bad.operators == ()
    assert loader.status("good").state == "ok"
    assert set(loader.components) == set(load(GOOD).components)
    assert set(loader.operators) == set(load(GOOD).operators)
    assert not loader.manager.has_plugin("bad")
    assert "bad" not in loader.implementing("delaykit_components") + loader.implementing("delaykit_commands")


def test_keyboard_interrupt_is_not_taken_for_a_broken_plugin() -> None:
    with pytest.raises(KeyboardInterrupt):
        load(PluginSource("bad", raises(KeyboardInterrupt())))


def test_plugins_load_sorted_by_name_so_that_the_same_one_always_wins_a_clash() -> None:
    first, second = source("a", plugin_of(record("x")), "dist-a"), source("b", plugin_of(record("x")), "dist-b")
    for order in ([first, second], [second, first]):
        loader = load(*order)
        assert [status.name for status in loader.statuses] == ["builtin", "a", "b"]
        assert [status.state for status in loader.statuses] == ["ok", "ok", "broken"]
        assert "plugin 'b' (of dist-b)" in loader.status("b").detail
        assert "plugin 'a' (of dist-a)" in loader.status("b").detail


def test_two_distributions_with_one_plugin_name_are_both_named() -> None:
    loader = load(source("same", plugin_of(record("y")), "dist-b"), source("same", plugin_of(record("x")), "dist-a"))
    states = [(s.distribution, s.state) for s in loader.statuses if s.name == "same"]
    assert states == [("dist-a", "ok"), ("dist-b", "broken")]
    assert "dist-a" in loader.statuses[-1].detail and "dist-b" in loader.statuses[-1].detail
    assert ("delay", "x") in loader.components and ("delay", "y") not in loader.components
    assert loader.manager.has_plugin("same")


def test_one_name_may_be_used_by_two_kinds() -> None:
    loader = load(source("p", plugin_of(record("free", kind="pruning"))))
    assert loader.status("p").state == "ok"
    assert {("delay", "free"), ("pruning", "free")} <= set(loader.components)


@pytest.mark.parametrize(
    ("environ", "states"),
    [
        ({"DELAYKIT_PLUGINS": "a"}, {"a": "ok", "b": "disabled"}),
        ({"DELAYKIT_PLUGINS": ""}, {"a": "disabled", "b": "disabled"}),
        ({"DELAYKIT_DISABLE": "a , "}, {"a": "disabled", "b": "ok"}),
        ({"DELAYKIT_PLUGINS": "a,b", "DELAYKIT_DISABLE": "a"}, {"a": "disabled", "b": "ok"}),
    ],
)
def test_environment_chooses_plugins_and_unchosen_ones_are_not_imported(
    environ: dict[str, str], states: dict[str, str]
) -> None:
    imported = []

    def importing(name: str) -> PluginSource:
        def run() -> types.ModuleType:
            imported.append(name)
            return plugin_of(record(name))

        return PluginSource(name, run)

    loader = load(importing("a"), importing("b"), **environ)
    assert {s.name: s.state for s in loader.statuses if s.name != "builtin"} == states
    assert imported == [name for name, state in states.items() if state == "ok"]
    assert ("delay", "free") in loader.components


def test_a_chosen_plugin_that_is_not_installed_is_listed_as_missing() -> None:
    loader = load(GOOD, DELAYKIT_PLUGINS="good,goood,delrec")
    assert [(s.name, s.state) for s in loader.statuses[-2:]] == [("delrec", "missing"), ("goood", "missing")]
    assert "pip install delaykit-delrec" in loader.status("delrec").detail
    assert "did you mean 'good'?" in loader.status("goood").detail


def test_resolve_imports_the_target_on_first_use(installed: Callable[..., PluginLoader]) -> None:
    installed(source("p", plugin_of(Component("delay", "counter", "collections:Counter"))))
    import collections

    assert registry.resolve("delay", "counter") is collections.Counter


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("delaykit_nowhere.config:X", "install the missing package 'delaykit_nowhere'"),
        ("collections:Countr", "no 'Countr' in collections"),
        ("collections:namedtuple", "expected a class"),
    ],
)
def test_a_target_that_is_not_there_says_so(installed: Callable[..., PluginLoader], config: str, message: str) -> None:
    installed(source("p", plugin_of(Component("delay", "x", config))))
    with pytest.raises(PluginError, match=message):
        registry.resolve("delay", "x")


def test_unknown_names_get_the_nearest_name_or_the_package(installed: Callable[..., PluginLoader]) -> None:
    installed()
    with pytest.raises(UnknownNameError, match="no delay named 'fre'; did you mean 'free'"):
        registry.resolve("delay", "fre")
    with pytest.raises(UnknownNameError, match="pip install delaykit-delrec"):
        registry.resolve("delay", "delrec")
    with pytest.raises(UnknownNameError, match="pip install delaykit-hetsyn"):
        registry.find("heterogeneity", "HetSyn")
    with pytest.raises(UnknownNameError, match="did you mean 'delay'"):
        registry.components("delays")
    with pytest.raises(UnknownNameError, match="list what is installed with `delaykit plugins`"):
        registry.find("delay", "zzz")


def test_an_installed_but_broken_plugin_is_not_offered_for_installation(
    installed: Callable[..., PluginLoader],
) -> None:
    installed(PluginSource("delrec", raises(ImportError("x"))))
    with pytest.raises(UnknownNameError, match="'delrec' is installed but broken"):
        registry.find("delay", "delrec")


def test_components_are_sorted_and_filtered(installed: Callable[..., PluginLoader]) -> None:
    installed(source("p", plugin_of(record("zeta"), record("alpha"), record("p", kind="pruning"))))
    assert [c.name for c in registry.components("delay")] == ["alpha", "free", "zeta"]
    assert [c.kind for c in registry.components()] == sorted(c.kind for c in registry.components())


def test_citation_by_record_config_class_and_name(installed: Callable[..., PluginLoader]) -> None:
    cited = Component("pruning", "x", "a:B", paper="Someone 2025")
    installed(source("p", plugin_of(cited)))

    class Config:
        kind, name = "pruning", "x"

    for component in (cited, Config, Config(), "x"):
        assert delaykit.citation(component) == "Someone 2025"
    with pytest.raises(UnknownNameError, match="did you mean 'free'"):
        delaykit.citation("fre")
    with pytest.raises(UnknownNameError, match="no kind and name"):
        delaykit.citation(3)


def test_builtins_register_through_the_hook_of_everybody_else() -> None:
    loader = load()
    assert {key for key in loader.components} == {
        ("delay", "free"),
        ("heterogeneity", "time_constants"),
        ("adapter", "snntorch"),
        ("adapter", "norse"),
        ("adapter", "torch"),
    }
    assert loader.status("builtin").state == "ok"


def test_official_names_belong_to_one_plugin_each() -> None:
    names = [name for known in OFFICIAL.values() for name in {word.lower() for words in known for word in words}]
    assert len(names) == len(set(names))
