"""The command line: listings, doctor, contributed commands, and what it says when something is missing."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from delaykit import ConfigError, hookimpl
from delaykit.__main__ import main
from delaykit.commands.cli import build
from delaykit.plugins.loader import PluginLoader, PluginSource


def plugin(name: str, **functions: Callable[..., Any]) -> PluginSource:
    module = types.ModuleType(name)
    for hook, function in functions.items():
        function.__name__ = hook
        setattr(module, hook, hookimpl(function))
    return PluginSource(name, lambda: module, f"delaykit-{name}", "0.1.0")


def broken(name: str) -> PluginSource:
    def fail() -> Any:
        raise ImportError("no module named 'gone'")

    return PluginSource(name, fail, f"delaykit-{name}")


def adds_command(name: str, run: Callable[[], None] = lambda: click.echo("ran")) -> Callable[..., None]:
    def delaykit_commands(cli: click.Group) -> None:
        cli.command(name)(run)

    return delaykit_commands


def run(*arguments: str, sources: tuple[PluginSource, ...] = ()) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(build(PluginLoader(sources, {})), arguments)


def test_plugins_lists_working_and_broken_ones() -> None:
    result = run("plugins", sources=(plugin("good", delaykit_components=lambda: []), broken("bad")))
    assert result.exit_code == 0
    for word in ("builtin", "delay free", "good", "0.1.0", "bad", "broken", "gone", "--traceback NAME"):
        assert word in result.output


def test_plugins_as_json_is_only_json() -> None:
    result = run("plugins", "--json", sources=(broken("bad"),))
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert rows["bad"]["state"] == "broken" and "ImportError" in rows["bad"]["traceback"]
    assert {"delay", "heterogeneity", "adapter"} == {component["kind"] for component in rows["builtin"]["components"]}


def test_traceback_of_a_broken_plugin() -> None:
    result = run("plugins", "--traceback", "bad", sources=(broken("bad"),))
    assert "Traceback (most recent call last)" in result.output and "no module named 'gone'" in result.output
    assert "builtin: ok, no traceback." in run("plugins", "--traceback", "builtin").output
    unknown = run("plugins", "--traceback", "builtn")
    assert unknown.exit_code == 1 and "did you mean 'builtin'?" in unknown.output


def test_a_plugin_adds_a_command() -> None:
    result = run("hello", sources=(plugin("p", delaykit_commands=adds_command("hello")),))
    assert (result.exit_code, result.output) == (0, "ran\n")


@pytest.mark.parametrize("taken", ["doctor", "hello"])
def test_a_taken_command_is_refused_naming_both_owners(taken: str) -> None:
    def clash(cli: click.Group) -> None:
        adds_command("extra")(cli)
        adds_command(taken, lambda: click.echo("stolen"))(cli)

    sources = plugin("first", delaykit_commands=adds_command("hello")), plugin("second", delaykit_commands=clash)
    loader = PluginLoader(sources, {})
    cli = build(loader)
    assert sorted(cli.commands) == ["doctor", "hello", "new", "plugins"]
    owner = "delaykit itself" if taken == "doctor" else "plugin 'first'"
    assert f"plugin 'second': found the command {taken!r}, already taken by {owner}" in loader.status("second").detail
    assert CliRunner().invoke(cli, ["hello"]).output == "ran\n"


def test_a_plugin_whose_commands_fail_leaves_none_behind() -> None:
    def half(cli: click.Group) -> None:
        adds_command("first")(cli)
        raise RuntimeError("no second")

    loader = PluginLoader([plugin("p", delaykit_commands=half)], {})
    assert sorted(build(loader).commands) == ["doctor", "new", "plugins"]
    assert loader.status("p").state == "broken" and "no second" in loader.status("p").detail


def test_demo_without_lab_names_the_package() -> None:
    result = run("demo")
    assert result.exit_code == 2 and "pip install delaykit-lab" in result.output


def test_demo_with_a_broken_lab_points_to_the_reason() -> None:
    result = run("demo", sources=(broken("lab"),))
    assert result.exit_code == 2 and "see `delaykit plugins`" in result.output and "pip" not in result.output


def test_unknown_command_suggests_the_nearest() -> None:
    result = run("plugin")
    assert result.exit_code == 2 and "did you mean 'plugins'?" in result.output


def test_typed_errors_become_one_message() -> None:
    def fail() -> None:
        raise ConfigError("here", "this", "that", "do so")

    result = run("hello", sources=(plugin("p", delaykit_commands=adds_command("hello", fail)),))
    assert result.exit_code == 1
    assert result.output.strip() == "Error: here: found this; expected that. To go on: do so."


def test_doctor_reports_extras_plugins_and_their_own_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    from delaykit.commands import health

    monkeypatch.setitem(health.EXTRAS, "fast", (("no_such_module",), "compiled CPU operators"))
    rows = [("data folder", False, "run get-data")]
    result = run("doctor", sources=(plugin("p", delaykit_health=lambda: rows),))
    assert result.exit_code == 0, result.output
    for word in ("torch", "safetensors", "pip install 'delaykit[fast]'", "absent", "data folder", "get-data"):
        assert word in result.output


def test_doctor_folds_what_is_longer_than_its_column() -> None:
    path = "/data/" + "/".join(f"folder{k}" for k in range(20))
    result = run("doctor", sources=(plugin("p", delaykit_health=lambda: [("recordings", True, path)]),))
    assert "…" not in result.output
    cells = "".join(line.split("│")[-2].strip() for line in result.output.splitlines() if line.count("│") > 2)
    assert path in cells


def test_doctor_fails_when_a_plugin_is_broken_or_a_requirement_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from delaykit.commands import health

    assert run("doctor", sources=(broken("bad"),)).exit_code == 1
    wrong_rows = run("doctor", sources=(plugin("p", delaykit_health=lambda: ["fine"]),))
    assert wrong_rows.exit_code == 1 and "delaykit_health" in wrong_rows.output
    monkeypatch.setattr(health, "REQUIRED", ("no_such_module",))
    result = run("doctor")
    assert result.exit_code == 1 and "pip install no_such_module" in result.output


def test_new_writes_a_plugin_and_says_how_to_go_on(tmp_path: Path) -> None:
    result = run("new", "mine", "--directory", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert (tmp_path / "delaykit-mine" / "src" / "delaykit_mine" / "plugin.py").exists()
    assert "pip install -e" in result.output


@pytest.mark.parametrize("name", ["free", "snntorch", "delrec", "builtin", "good"])
def test_new_refuses_taken_names(name: str, tmp_path: Path) -> None:
    result = run("new", name, "--directory", str(tmp_path), sources=(plugin("good", delaykit_components=lambda: []),))
    assert result.exit_code == 1 and "already" in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_cli_extra_one_line_says_what_to_install(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setattr(sys, "argv", ["delaykit", "demo"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert "pip install 'delaykit[cli]'" in str(stop.value) and "\n" not in str(stop.value)


def bare(*words: str) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).parents[1] / "packaging" / "bare.py"
    return subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True, check=False)


def test_help_and_version_work_in_a_bare_install() -> None:
    for words, expected in ((["--help"], "delaykit doctor"), ([], "delaykit doctor"), (["--version"], "version 0.")):
        ran = bare(*words)
        assert ran.returncode == 0 and expected in ran.stdout and "pip install 'delaykit[cli]'" in ran.stdout, ran
    other = bare("demo")
    assert other.returncode == 1 and "click and rich" in other.stderr and "Traceback" not in other.stderr


def test_doctor_works_in_a_bare_install_and_names_both_packages_of_nir() -> None:
    ran = bare("doctor")
    assert ran.returncode == 0 and "Traceback" not in ran.stderr, ran.stderr
    for words in ("torch", "no nir, nirtorch: pip install 'delaykit[nir]'", "no click, rich, tqdm", "plugin builtin"):
        assert words in ran.stdout


def test_doctor_tries_what_is_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A torchvision that does not fit torch is found by its import, not by its being there."""
    from delaykit.commands import health

    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    (row,) = [row for row in health.optional() if row.what.startswith("torchvision")]
    assert row.broken and not row.ok and "nms does not exist" in row.detail
    sys.modules.pop("torchvision", None)
