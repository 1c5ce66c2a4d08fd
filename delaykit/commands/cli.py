"""The command line: ``plugins``, ``doctor``, ``new``, and whatever plugins add. Help and listings import no torch."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

import delaykit
from delaykit.errors import DelaykitError, PluginError
from delaykit.names import nearest, official_plugin
from delaykit.plugins.loader import PluginLoader

# Commands of official plugins, so that `delaykit demo` without the plugin says what to install.
COMMANDS_OF_PLUGINS = dict.fromkeys(("compare", "demo", "question", "reproduce", "train"), "lab")
COLOURS = {"ok": "green", "disabled": "yellow", "missing": "yellow", "broken": "red"}


class CommandLine(click.Group):
    """The root group: unknown commands name the plugin to install, and typed errors end in one message."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say where it would come from."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            plugin = COMMANDS_OF_PLUGINS.get(name)
            if plugin and any(status.name == plugin for status in ctx.obj.statuses):
                ctx.fail(f"the command {name!r} comes with the plugin {plugin!r}, see `delaykit plugins`")
            if plugin:
                ctx.fail(f"the command {name!r} comes with a plugin: pip install delaykit-{plugin}")
            ctx.fail(f"no command {name!r}{nearest(name, self.commands)}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a :class:`DelaykitError` becomes a message without traceback."""
        try:
            return super().invoke(ctx)
        except DelaykitError as error:
            raise click.ClickException(str(error)) from error


def build(loader: PluginLoader | None = None) -> CommandLine:
    """Make the command line with the commands of all working plugins.

    Args:
        loader: where plugins come from; the installed ones if None.

    Example:
        >>> sorted(build(PluginLoader([], {})).commands)
        ['doctor', 'new', 'plugins']
    """
    if loader is None:
        from delaykit.plugins.registry import loader as installed

        loader = installed()
    cli = CommandLine("delaykit", help=delaykit.__doc__ and delaykit.__doc__.partition("\n")[0], no_args_is_help=True)
    click.version_option(delaykit.__version__, prog_name="delaykit")(cli)
    for command in (list_plugins, doctor, new):
        cli.add_command(command)
    owners = dict.fromkeys(cli.commands, "delaykit itself")
    for name in loader.implementing("delaykit_commands"):
        _add_commands(cli, loader, name, owners)
    cli.context_settings["obj"] = loader
    return cli


def _add_commands(cli: click.Group, loader: PluginLoader, name: str, owners: dict[str, str]) -> None:
    before = dict(cli.commands)
    try:
        with loader.isolated(name):
            loader.call(name, "delaykit_commands", cli=cli)
            for command, owner in owners.items():
                if cli.commands.get(command) is not before[command]:
                    found = f"the command {command!r}, already taken by {owner}"
                    raise PluginError(f"plugin {name!r}", found, "a new command name", "rename the command")
    finally:
        if loader.status(name).state == "broken":
            cli.commands.clear()
            cli.commands.update(before)
    owners.update(dict.fromkeys(cli.commands.keys() - owners.keys(), f"plugin {name!r}"))


@click.command("plugins")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--traceback", "name", metavar="NAME", help="Print the traceback of a broken plugin.")
@click.pass_obj
def list_plugins(loader: PluginLoader, as_json: bool, name: str | None) -> None:
    """List plugins, what they bring, and why one does not load."""
    if name is not None:
        click.echo(_traceback(loader, name))
    elif as_json:
        click.echo(json.dumps([dataclasses.asdict(status) for status in loader.statuses], indent=2))
    else:
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Column, Table

        table = Table("plugin", "status", "version", "brings", Column("detail", overflow="fold"))
        for status in loader.statuses:
            brings = "\n".join(f"{record.kind} {record.name}" for record in status.components)
            state = f"[{COLOURS[status.state]}]{status.state}[/]"
            table.add_row(escape(status.name), state, status.version, escape(brings), escape(status.detail))
        Console().print(table)
        if any(status.traceback for status in loader.statuses):
            click.echo("delaykit plugins --traceback NAME shows where a plugin broke.")


def _traceback(loader: PluginLoader, name: str) -> str:
    rows = [status for status in loader.statuses if status.name == name]
    if not rows:
        raise click.ClickException(f"no plugin {name!r}{nearest(name, [s.name for s in loader.statuses])}")
    return "\n".join(row.traceback or f"{name}: {row.state}, no traceback." for row in rows)


@click.command()
@click.pass_obj
def doctor(loader: PluginLoader) -> None:
    """Check what is installed, what each part needs, and what to install."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    from delaykit.commands import health

    rows = [*health.required(), *health.optional(), *health.plugins(loader)]
    table = Table("what", "", Column("detail", overflow="fold"))  # a path is read to its end
    for row in rows:
        mark = "[green]ok[/]" if row.ok else "[red]broken[/]" if row.needed or row.broken else "[yellow]absent[/]"
        table.add_row(escape(row.what), mark, escape(row.detail))
    Console().print(table)
    if any(row.needed and not row.ok for row in rows):
        raise click.ClickException("something that delaykit needs is missing or broken, see the table")


@click.command()
@click.argument("name")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("."),
    help="Where to make the folder delaykit-NAME; the current folder by default.",
)
@click.pass_obj
def new(loader: PluginLoader, name: str, directory: Path) -> None:
    """Write a new plugin: a documented delay with tests, ready to install."""
    from delaykit.commands.scaffold import create

    taken = {status.name for status in loader.statuses} | {component for _, component in loader.components}
    if official_plugin(name):
        taken.add(name)
    folder = create(name, directory, taken)
    click.echo(f"wrote {folder}\n\n  pip install -e {folder}\n  delaykit plugins\n  pytest {folder}")
