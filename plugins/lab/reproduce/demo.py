"""The demo's numbers as records, one a run: what the front page says about the wave and the recorded speech.

    python plugins/lab/reproduce/demo.py --part wave
    python plugins/lab/reproduce/demo.py --part speech

What is finished is recorded and not repeated.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from typing import Any

from delaykit_lab import command_line, read_options, record_path, remembered
from delaykit_lab.demo import DemoConfig, DemoResult, WaveConfig, run_demo
from delaykit_lab.demo.parts import Part
from delaykit_lab.demo.pictures import draw
from delaykit_lab.demo.variants import VARIANTS

PARTS: dict[str, type[Part]] = {"wave": WaveConfig, "speech": DemoConfig}


def main() -> None:
    """Run what has no record yet."""
    parser = command_line(__doc__, out="runs/lab_{part}", seeds=(5, 5))
    parser.add_argument("--part", choices=sorted(PARTS), default="wave")
    options = read_options(parser)
    config: Any = PARTS[options.part](seeds=options.seeds)

    @functools.cache
    def result() -> DemoResult:
        with tempfile.TemporaryDirectory() as folder:
            found = run_demo(config, folder, search=True)
        task = config.task()
        draw(found, task.splits(0).train, task.step_ms(), options.out)
        for name in ("input", "learning", "delays"):
            (options.out / f"{name}.png").unlink()
        print(found.text())
        return found

    def train(variant: str, seed: int) -> dict[str, Any]:
        (run,) = [run for run in result().runs if (run.variant, run.seed) == (variant, seed)]
        numbers = {"test": run.test_accuracy, "test_rounded": run.test_accuracy_integer, "rate": run.rate}
        numbers |= {"tried": run.tried}
        last = run.history[-1]
        numbers |= {"validation": last.validation_accuracy, "hidden": run.hidden, "parameters": run.numbers}
        return numbers | {"counts_alone": result().counts_alone, "cpu_s": run.seconds}

    for variant in VARIANTS:
        for seed in range(config.seeds):
            settings = {"part": options.part, "variant": variant.name, "seed": seed}
            settings |= {name: value for name, value in dataclasses.asdict(config).items() if name != "seeds"}
            path = record_path(options.out, settings, f"{variant.name}_{seed}")
            remembered(path, settings, functools.partial(train, variant.name, seed))


if __name__ == "__main__":
    main()
