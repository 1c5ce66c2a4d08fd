"""The command line of the lab. What a command needs is imported when it runs."""

from __future__ import annotations

from typing import Any

import click


@click.command()
@click.option("--library", type=click.Choice(["snntorch", "norse"]), default="snntorch", show_default=True)
@click.option(
    "--data",
    type=click.Path(),
    help="Folder or file of spike trains in SHD's HDF5 layout [default: recorded "
    "vowels of nine speakers, shipped inside sktime].",
)
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Runs of each network.")
@click.option("--epochs", type=click.IntRange(min=1), default=None, help="Epochs of each run [default: 40].")
@click.option(
    "--limit",
    type=click.IntRange(min=10),
    default=1000,
    show_default=True,
    help="At most that many training samples of --data.",
)
@click.option(
    "--output",
    type=click.Path(file_okay=False),
    default="runs/demo",
    show_default=True,
    help="Folder for pictures and results.json.",
)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, or auto.")
@click.option("--resume", is_flag=True, help="Go on where an interrupted demo with the same settings stopped.")
def demo(epochs: int | None, output: str, resume: bool, **settings: Any) -> None:
    """Train a spiking network on recorded speech without delays, with random and with learned delays."""
    from delaykit import DelaykitError

    click.echo("Loading torch and the recordings ...", err=True)
    try:
        from delaykit_lab.demo import DemoConfig

        if epochs is not None:
            settings["epochs"] = epochs
        _demo(DemoConfig(**settings), output, resume)
    except DelaykitError as problem:
        raise click.ClickException(str(problem)) from problem


def _demo(config: Any, output: str, resume: bool) -> None:
    from tqdm import tqdm

    from delaykit_lab.demo import run_demo
    from delaykit_lab.plotting import draw
    from delaykit_lab.variants import VARIANTS

    with tqdm(total=config.seeds * len(VARIANTS) * config.epochs, unit="epoch", dynamic_ncols=True) as bar:

        def watch(variant: Any, seed: int, epoch: Any) -> None:
            bar.set_description(f"{variant.title}, seed {seed + 1}/{config.seeds}")
            bar.set_postfix_str(f"validation {100 * epoch.validation_accuracy:.0f} %", refresh=False)
            runs_before = seed * len(VARIANTS) + VARIANTS.index(variant)
            bar.update(runs_before * config.epochs + epoch.epoch - bar.n)

        result = run_demo(config, output, resume=resume, watch=watch)
    task = config.task()
    pictures = draw(result, task.splits(seed=0).train, task.step_ms(), output)
    click.echo(f"\n{result.text()}\n")
    click.echo(f"Pictures and numbers: {', '.join(path.name for path in pictures)}, results.json in {output}")


@click.command()
@click.argument("paper", required=False, type=click.Choice(["delrec", "spatial", "hetsyn", "motifs", "timing"]))
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
    from delaykit_lab import experiments, published

    try:
        source = experiments.find_source(Path.cwd())
        if tables:
            for path in published.update(source):
                click.echo(f"{path.relative_to(source)}: rewritten")
            return
        chosen = [one for one in experiments.experiments(source, scale) if paper in (None, one.paper)]
        chosen = [one for one in chosen if only in (None, one.name)]
        if not chosen:
            raise click.UsageError(f"no experiment {only or paper} at scale {scale}; --list shows them")
        if listed:
            for one in chosen:
                click.echo(f"{one.paper:8} {one.name:32} {one.cpu_hours:6g} CPU h  {one.what}")
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
