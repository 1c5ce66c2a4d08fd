"""Detectors of direction learn their delays from clicks; the lags are compared with the geometry of the head."""

from __future__ import annotations

import torch

from delaykit import plotting
from delaykit_lab import SoundLocalisation, command_line, read_options, record_path, remembered
from delaykit_lab.demo.localisation import Lags, draw_lags, learn_directions


def main() -> None:
    """Run what is not finished yet, then draw."""
    options = read_options(command_line(__doc__, out="runs/lab_sound_localisation", seeds=(3, 3), epochs=True))
    task, epochs, runs = SoundLocalisation(), options.epochs or 30, []
    for seed in range(options.seeds):
        settings = {"task": repr(task), "seed": seed, "epochs": epochs}

        def run(seed: int = seed) -> dict:
            lags = learn_directions(task, seed, epochs)
            return {name: getattr(lags, name).tolist() for name in ("true_ms", "start_ms", "learned_ms")} | {
                "test_accuracy": lags.test_accuracy
            }

        found = remembered(record_path(options.out, settings, f"seed{seed}"), settings, run)
        accuracy = found.pop("test_accuracy")
        runs.append(Lags(*(torch.tensor(found[name]) for name in ("true_ms", "start_ms", "learned_ms")), accuracy))
        print(f"seed {seed}: test accuracy {accuracy:.3f}, lags are wrong by {1000 * runs[-1].error_ms():.0f} us")
    with plotting.style():
        draw_lags(runs).figure.savefig(options.out / "lags.png")
    print(f"best possible accuracy {task.optimum().accuracy:.3f}; picture: {options.out / 'lags.png'}")


if __name__ == "__main__":
    main()
