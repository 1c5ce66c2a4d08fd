"""The command ``delaykit demo``: progress, tables, pictures and one line of cost."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import click
from tqdm import tqdm

from delaykit_lab.demo.cost import measure
from delaykit_lab.demo.detectors import learn_arrivals
from delaykit_lab.demo.parts import DemoConfig, Part, WaveConfig
from delaykit_lab.demo.pictures import draw, draw_arrivals
from delaykit_lab.demo.runs import count_epochs, run_demo
from delaykit_lab.records.files import writing


def show(part: str | None, settings: dict[str, Any], output: str | Path, resume: bool) -> None:
    """Run the parts asked for, print what they found, and write pictures and numbers.

    Args:
        part: ``all``, ``wave`` or ``speech``; None: ``all``, or ``speech`` where a setting is for speech only.
        settings: options that were given; each part takes those that it has.
        output: folder; each part has one of its own in it.
        resume: go on where an interrupted demo stopped.

    Raises:
        DelaykitError: settings, data or a state file do not fit, or the folder cannot be written.
    """
    wave_has = {field.name for field in dataclasses.fields(WaveConfig)}
    part = part or ("all" if set(settings) <= wave_has else "speech")
    speech = DemoConfig(**settings)  # also where the wave comes first: a mistake is told before work begins
    speech.task()
    with writing(Path(output)):
        Path(output).mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=output).close()
        if part in ("all", "wave"):
            _wave(WaveConfig(**{name: value for name, value in settings.items() if name in wave_has}), output, resume)
        if part in ("all", "speech"):
            _part(speech, output, resume)
            click.echo(f"{measure(speech).text()}\n")


def _wave(config: WaveConfig, output: str | Path, resume: bool) -> None:
    _part(config, output, resume)
    task = config.task()
    found = learn_arrivals()
    path = draw_arrivals(found, task.step_ms(), Path(output, config.name, "arrivals.png"))
    click.echo(f"{found.text(task.step_ms())}; one of them: {path}\n")


def _part(config: Part, output: str | Path, resume: bool) -> None:
    folder = Path(output, config.name)
    total = count_epochs(config)
    with tqdm(total=total, unit="epoch", dynamic_ncols=True, leave=False) as bar:

        def watch(variant: Any, seed: int, epoch: Any) -> None:
            bar.set_description(f"{config.name}, {variant.title}, seed {seed + 1}/{config.seeds}")
            bar.set_postfix_str(f"validation {100 * epoch.validation_accuracy:.0f} %", refresh=False)
            bar.update()

        result = run_demo(config, folder, resume=resume, watch=watch)
    task = config.task()
    pictures = draw(result, task.splits(seed=0).train, task.step_ms(), folder)
    click.echo(f"\n{result.text()}\n")
    click.echo(f"Pictures and numbers: {', '.join(path.name for path in pictures)}, results.json in {folder}\n")
