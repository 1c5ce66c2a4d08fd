"""``delaykit compare`` and ``delaykit question``. What they need is imported when they run."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import click

from delaykit_lab.commands.train import sentences
from delaykit_lab.declared import Declared, names_of, take


@dataclasses.dataclass(frozen=True)
class Run(Declared):
    """What the command or its file says beside the comparison."""

    out: str | Path | None = None
    workers: int | None = None
    backend: str = "processes"
    cluster: str | None = None


@click.command()
@click.option("--task", help="A task: see `delaykit plugins`.")
@click.option("--set", "set_", multiple=True, metavar="NAME=VALUE", help="Option of the task, e.g. path=data.")
@click.option("--methods", help="none,frozen,delrec,dcls,frozen-dcls,both,spatial:2,hetsyn,motifs,wider,...; + joins.")
@click.option("--model", help="rsnn:32, snn:24, ... [default: rsnn:32].")
@click.option("--equal", help="parameters, synaptic-operations, time or nothing [default: parameters].")
@click.option("--budget", type=float, help="How much that is [default: what the dearest method costs].")
@click.option("--seeds", type=int, help="Runs of each method [default: 3].")
@click.option("--rates", help="Learning rates tried for each method [default: 0.003,0.01].")
@click.option("--delay-rate", type=float, help="Rate of delays, in rates of weights [default: 20].")
@click.option("--max-delay", type=int, help="Longest delay in steps.")
@click.option("--epochs", type=int, help="Epochs of each run [default: 30].")
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help="Of `train`, for all: batch_size=32")
@click.option("--config", type=click.Path(path_type=Path), help="A TOML file with the same names; options win.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for everything [default: runs/compare-TASK].")
@click.option("--workers", type=click.IntRange(min=1), help="Runs side by side [default: one a core].")
@click.option("--backend", help="processes, or submitit for a cluster [default: processes].")
@click.option("--cluster", help="Of submitit: slurm or local.")
@click.option("--resume", is_flag=True, help="Go on with what is in --out.")
def compare(config: Path | None, resume: bool, **given: Any) -> None:
    """Compare methods on a task under one protocol, and write an HTML report."""
    with sentences():
        from delaykit_lab.comparison.config import Comparison
        from delaykit_lab.records.answers import write_answer
        from delaykit_lab.training.config import from_values, make_task

        values = gather(config, given)
        run = take(Run, values)
        comparison = from_values(Comparison, values, ("task", "methods"), names_of(Run))
        folder = Path(run.out or f"runs/compare-{comparison.task}")
        results = run_and_show(comparison, folder, run, resume)
        data = make_task(comparison.task, comparison.set).files()
        click.echo(f"Record: {write_answer('record', None, results, folder, data)}")


@click.command()
@click.argument("name", required=False)
@click.option("--task", help="Ask it of another task.")
@click.option("--set", "set_", multiple=True, metavar="NAME=VALUE", help="Option of the task, e.g. path=data.")
@click.option("--model", help="Ask it of another network.")
@click.option("--seeds", type=int, help="Runs of each method [default: 3].")
@click.option("--epochs", type=int, help="Epochs of each run [default: 30].")
@click.option("--rates", help="Learning rates tried for each method.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for everything [default: runs/NAME].")
@click.option("--workers", type=click.IntRange(min=1), help="Runs side by side [default: one a core].")
@click.option("--resume", is_flag=True, help="Go on with what is in --out.")
def question(name: str | None, out: Path | None, workers: int | None, resume: bool, **given: Any) -> None:
    """Put an open question on delays, Q1 to Q6, to the test; without a name, list them."""
    with sentences():
        from delaykit_lab.comparison.config import Comparison
        from delaykit_lab.comparison.questions import question as find
        from delaykit_lab.comparison.questions import questions
        from delaykit_lab.records.answers import write_answer
        from delaykit_lab.training.config import make_task

        if name is None:
            for key, asked in questions().items():
                click.echo(f"{key}  {asked.text}\n    {asked.comparison.task}, about {asked.minutes} min of one core")
            return
        asked = find(name)
        changed = gather(None, given)
        click.echo(f"{name.upper()}: {asked.text}")
        click.echo(f"About {asked.minutes} min of one core{' as preset; yours differs' if changed else ''}.")
        comparison = Comparison.from_json(asked.comparison.to_json() | changed)
        folder = out or Path(f"runs/{name.upper()}")
        results = run_and_show(comparison, folder, Run(workers=workers), resume)
        data = make_task(comparison.task, comparison.set).files()
        click.echo(f"Record: {write_answer(name.upper(), asked.text, results, folder, data)}")


def gather(config: Path | None, given: dict[str, Any]) -> dict[str, Any]:
    """Return the values of the TOML file, and those of the command line over them."""
    from delaykit import ConfigError
    from delaykit_lab.training.config import read_toml
    from delaykit_lab.words import options_of

    values: dict[str, Any] = read_toml(config) if config is not None else {}
    for name, words in (("set", given.pop("set_", ())), ("options", given.pop("options", ()))):
        if words:
            known = values.get(name, {})
            values[name] = {**known, **options_of(f"--{name}", words)} if isinstance(known, dict) else known
    if methods := given.pop("methods", None):
        values["methods"] = split_methods(methods)
    if (rates := given.pop("rates", None)) is not None:
        try:
            values["rates"] = [float(rate) for rate in rates.split(",")]
        except ValueError:
            raise ConfigError("--rates", repr(rates), "numbers", "e.g. --rates 0.003,0.01") from None
    return values | {name: value for name, value in given.items() if value is not None}


def split_methods(text: str) -> list[str]:
    """Split at commas, but not between a method and its own options.

    Example:
        >>> split_methods("none,free:axonal,max_delay=9,both")
        ['none', 'free:axonal,max_delay=9', 'both']
    """
    found: list[str] = []
    for word in text.split(","):
        name = word.strip()
        if "=" in name.partition("+")[0] and ":" not in name and found:
            found[-1] += f",{name}"
        elif name:
            found.append(name)
    return found


def run_and_show(comparison: Any, out: Path, how: Run, resume: bool) -> dict[str, Any]:
    """Run a comparison with a progress bar, print its table and what it supports, and return its results."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Table

    from delaykit_lab.comparison.report import table_rows
    from delaykit_lab.comparison.run import compare as run

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    go: dict[str, Any] = {"backend": how.backend, "cluster": how.cluster, "resume": resume}
    go["workers"] = cores if how.workers is None else how.workers
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    total = len(comparison.methods) * (len(comparison.rates) + 1) * comparison.seeds
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("searching widths", total=total)

        def tell(line: str) -> None:
            bar.update(task, advance=0 if line.startswith("sizes") else 1, description=line[:60])

        try:
            results = run(comparison, out, tell=tell, **go)
        except BaseException:  # nothing but the sentence is left of a comparison that fails
            bar.update(task, visible=False)
            raise
    import json

    timing = json.loads((out / "timing.json").read_text())
    table = Table(title=results["title"])
    for name in ("method", "layers", "numbers", "test %", "whole %", "spikes", "syn. ops", "s", "rate"):
        table.add_column(name, justify="left" if name == "method" else "right", overflow="fold")
    for row in table_rows(results, timing):
        table.add_row(*(cell.replace(" ± ", "±").removesuffix(" %") for cell in row))
    Console().print(table)
    for line in results["findings"]["sentences"]:
        click.echo(f"- {line}")
    click.echo(f"Report: {out / 'report.html'}")
    return results
