"""The command line of the lab. What a command needs is imported when it runs."""

from __future__ import annotations

from typing import Any

import click


@click.command()
@click.option("--library", type=click.Choice(["snntorch", "norse"]), help="Of the speech network [default: snntorch].")
@click.option(
    "--data",
    type=click.Path(),
    help="Folder or file of spike trains in SHD's HDF5 layout [default: recorded "
    "vowels of nine speakers, shipped inside sktime].",
)
@click.option(
    "--part",
    type=click.Choice(["all", "wave", "speech"]),
    help="What to show [default: all; with --data or --library norse, speech].",
)
@click.option("--seeds", type=click.IntRange(min=1), help="Runs of each network [default: wave 5, speech 3].")
@click.option("--epochs", type=click.IntRange(min=1), help="Epochs of each run [default: wave 20, speech 40].")
@click.option(
    "--limit",
    type=click.IntRange(min=10),
    help="At most that many training samples of --data [default: 1000].",
)
@click.option(
    "--out",
    "--output",
    "output",
    type=click.Path(file_okay=False),
    default="runs/demo",
    show_default=True,
    help="Folder for pictures and results.json.",
)
@click.option("--device", help="cpu, cuda, or auto [default: cpu].")
@click.option("--resume", is_flag=True, help="Go on where an interrupted demo with the same settings stopped.")
def demo(part: str | None, output: str, resume: bool, **settings: Any) -> None:
    """Show what delays are worth: where nothing but timing tells, on recorded speech, and what they cost."""
    from delaykit_lab.commands.train import sentences

    click.echo("Loading torch and the recordings ...", err=True)
    with sentences():
        from delaykit_lab.demo.show import show

        show(part, {name: value for name, value in settings.items() if value is not None}, output, resume)


@click.command()
@click.argument("paper", required=False, type=click.Choice(["delrec", "spatial", "hetsyn", "lab", "motifs", "timing"]))
@click.option("--only", metavar="NAME", help="One experiment; --list shows their names.")
@click.option("--scale", type=click.Choice(["cpu", "full"]), default="cpu", show_default=True)
@click.option("--data", type=click.Path(exists=True, file_okay=False), help="Folder with the recordings or images.")
@click.option("--out", type=click.Path(file_okay=False), help="Folder for records [default: results/ of the checkout].")
@click.option("--list", "listed", is_flag=True, help="Show the experiments and run none.")
@click.option("--tables", is_flag=True, help="Rewrite the tables of the READMEs from the records and run nothing.")
def reproduce(
    paper: str | None, only: str | None, scale: str, data: str | None, out: str | None, listed: bool, tables: bool
) -> None:
    """Run the experiments of a paper, or of all: what is finished is not repeated, what was interrupted goes on."""
    from pathlib import Path

    from delaykit import DelaykitError
    from delaykit_lab.records import budget, experiments, published

    try:
        source = experiments.find_source(Path.cwd())
        if tables:
            for path in published.update(source):
                click.echo(f"{path.relative_to(source)}: rewritten")
            return
        try:
            chosen = experiments.chosen(source, scale, paper, only)
        except DelaykitError as problem:
            raise click.UsageError(str(problem)) from problem
        if listed:
            for one in chosen:
                click.echo(f"{one.paper:8} {one.name:32} {one.cpu_hours:6g} CPU h  {one.what}")
            click.echo(budget.spent_text(source))
            return
        found = {}
        for one in chosen:
            click.echo(f"== {one.paper}, {one.name} ({one.scale}, about {one.cpu_hours:g} CPU hours)", err=True)
            folder = None if out is None else Path(out) / one.paper / one.name
            found[one.name] = experiments.run(one, source, None if data is None else Path(data), folder)
    except DelaykitError as problem:
        raise click.ClickException(str(problem)) from problem
    for name, what in found.items():
        click.echo(f"{name}: {what}")
    asked = paper is not None or only is not None
    if any(what.startswith("failed") or (asked and what != "done") for what in found.values()):
        raise SystemExit(1)
