"""``delaykit train``. What the command needs is imported when it runs."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import click

from delaykit_lab.declared import Declared, names_of, take


@dataclasses.dataclass(frozen=True)
class Run(Declared):
    """What the command or its file says beside the job."""

    seeds: int = 1
    out: str | Path | None = None
    device: str = "auto"


def job_options(command: Callable) -> Callable:
    """Add the options that say how a network is trained."""
    options = [
        click.option("--task", help="A task: see `delaykit plugins`."),
        click.option("--set", "set_", multiple=True, metavar="NAME=VALUE", help="Option of the task, e.g. path=data."),
        click.option("--model", help="rsnn:256,256 | norse:256 | snn:64 | conv:16,32 | detectors; neuron=, beta=."),
        click.option("--epochs", type=click.IntRange(min=1)),
        click.option("--batch-size", type=click.IntRange(min=1)),
        click.option("--lr", type=float, help="Learning rate of weights."),
        click.option("--delay-lr", type=float, help="Of delays and the like [default: 50 times --lr]."),
        click.option("--weight-decay", type=float),
        click.option("--clip", type=float, help="Largest norm of the gradient."),
        click.option("--optimizer", help="A class of torch.optim."),
        click.option("--scheduler", help="A class of torch.optim.lr_scheduler, e.g. StepLR,step_size=10."),
        click.option("--precision", help="no or bf16."),
        click.option("--estimator", help="Of all delays: interp, exact or none."),
        click.option("--rounding", help="Of all delays, e.g. straight-through."),
        click.option("--augment", help="shift=4,drop=0.1,noise=0.001"),
        click.option("--seed", type=int, help="First seed."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@job_options
@click.option("--with", "with_", multiple=True, metavar="METHOD", help="delrec:axonal,max_delay=40; several compose.")
@click.option("--seeds", type=click.IntRange(min=1), help="Number of runs [default: 1].")
@click.option("--config", type=click.Path(path_type=Path), help="A TOML file with the same names; options win.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for everything [default: runs/TASK].")
@click.option("--device", help="auto, cpu or cuda [default: auto].")
@click.option("--resume", is_flag=True, help="Go on with what is in --out.")
def train(config: Path | None, resume: bool, **given: Any) -> None:
    """Train a network with delays on a task: one configuration, several seeds.

    Several processes and machines: `accelerate launch -m delaykit train ...` or torchrun.
    """
    with sentences():
        from delaykit_lab.training.config import Job, from_values
        from delaykit_lab.training.experiment import train as run

        values = gather(config, given)
        options = take(Run, values)
        job = from_values(Job, values, ("task", "model"), ("with", *names_of(Run)))
        out = Path(options.out or f"runs/{job.task}")
        job.make_task()  # before anything is made
        go: dict[str, Any] = {"seeds": options.seeds, "device": options.device, "resume": resume}
        with progress(options.seeds * job.epochs) as step:
            records = run(job, out, on_epoch=step, **go)
    show(job, records, out)


def gather(config: Path | None, given: dict[str, Any]) -> dict[str, Any]:
    """Return the values of the TOML file, and those of the command line over them."""
    from delaykit import ConfigError
    from delaykit_lab.training.config import read_toml
    from delaykit_lab.words import options_of

    values: dict[str, Any] = read_toml(config) if config is not None else {}
    if "with" in values:
        if "methods" in values:
            raise ConfigError(str(config), "both with and methods", "one of them", "they are the same: keep one")
        values["methods"] = values.pop("with")
    tasks = options_of("--set", given.pop("set_", ()))
    if tasks:
        known = values.get("set", {})
        values["set"] = {**known, **tasks} if isinstance(known, dict) else known
    if methods := given.pop("with_", ()):
        values["methods"] = list(methods)
    if scheduler := given.pop("scheduler", None):
        name, _, rest = scheduler.partition(",")
        values["scheduler"] = name
        values["scheduler_options"] = options_of("--scheduler", filter(None, rest.split(",")))
    return values | {name: value for name, value in given.items() if value is not None}


INTERRUPTED = "interrupted; what is finished is kept: add --resume to go on"


@contextmanager
def sentences() -> Iterator[None]:
    """Let a command end in a sentence: errors of delaykit, Ctrl-C and SIGTERM, after which ``--resume`` goes on."""
    from delaykit import DelaykitError

    signals: list[int] = []
    try:
        with terminated_as_interrupted(signals):
            yield
    except KeyboardInterrupt:
        raise click.ClickException(INTERRUPTED) from None
    except Exception as problem:
        if signals:  # an interruption while Numba compiles is lost there, and another error comes of it
            raise click.ClickException(INTERRUPTED) from None
        if isinstance(problem, DelaykitError):
            raise click.ClickException(str(problem)) from problem
        if not (isinstance(problem, MemoryError) or (isinstance(problem, RuntimeError) and "alloc" in str(problem))):
            raise
        text = f"more memory than there is ({problem}); take a smaller --model, fewer samples or fewer steps"
        raise click.ClickException(text) from None


@contextmanager
def terminated_as_interrupted(signals: list[int]) -> Iterator[None]:
    """Let SIGTERM, by which batch systems and containers end a process, do what Ctrl-C does; note both."""

    def interrupt(number: int, _: Any) -> None:
        signals.append(number)
        raise KeyboardInterrupt

    usual = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    main = current_thread() is main_thread()
    ours = {number: handler for number, handler in usual.items() if main and signal.getsignal(number) is handler}
    for number in ours:  # what another owns is left
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)


@contextmanager
def progress(epochs: int) -> Iterator[Callable[[int, dict[str, Any]], None]]:
    """Show a bar over all epochs, with the validation accuracy of the last one."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("reading the data", total=epochs)

        def step(seed: int, record: dict[str, Any]) -> None:
            text = f"seed {seed}: validation {100 * record['validation_accuracy']:.1f} %"
            bar.update(task, advance=1, description=text)

        try:
            yield step
        except BaseException:  # nothing but the sentence is left of a run that fails
            bar.update(task, visible=False)
            raise


def show(job: Any, records: list[dict[str, Any]], out: Path) -> None:
    """Print a table of the runs."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{records[0]['title']}: {job.model} {' '.join(job.methods) or 'without delays'}")
    table.add_column("seed")
    for name in ("valid.", "test", "whole", "numbers", "spikes", "syn. ops", "s"):
        table.add_column(name, justify="right")
    for record in records:
        counts = ("spikes", "synaptic_operations")
        number = {name: "-" if record[name] is None else f"{record[name]:.0f}" for name in counts}
        table.add_row(
            str(record["job"]["seed"]), f"{100 * record['validation']:.1f} %", f"{100 * record['test']:.1f} %",
            f"{100 * record['test_whole']:.1f} %", str(record["parameters"]), number["spikes"],
            number["synaptic_operations"], f"{record['seconds']:.0f}",
        )  # fmt: skip
    Console().print(table)
    samples = records[0]["samples"]
    click.echo(
        f"{samples['train']} training, {samples['validation']} validation, {samples['test']} test samples; the test "
        f"set was scored once a run, after the last epoch; chance {100 * records[0]['chance']:.1f} %.\n"
        "whole: test with delays rounded to whole steps; spikes and synaptic operations are means of a sample.\n"
        f"Records, logs, pictures and networks: {out}"
    )
