"""Does learning positions beat freezing them? One thing varied at a time, on validation points alone.

    python plugins/spatial/reproduce/regime.py

Yin-Yang by the first spike, as ``yin_yang.py`` trains it in its reduction. For each case the network whose positions
(or free delays) learn and the one where they stay as they were drawn are trained from the same seeds: the same weights,
places, order of samples and rate. The table gives the difference on validation points over the last five epochs,
learned minus frozen; test points are never scored. Varied: neurons, dims, rate of the positions, and the first places.
Every finished run is recorded and not repeated.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from pathlib import Path
from typing import Any

from yin_yang import Setting, train

from delaykit_lab import command_line, read_options, record_path, remembered
from delaykit_lab.records.differences import differences_picture, differences_table
from delaykit_lab.tasks.yin_yang import PointSplits, YinYang

RATE, EPOCHS = 1.6e-3, 25  # of all cases, frozen and learned alike
CASES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "5 neurons": {"hidden": 5},
    "10 neurons": {"hidden": 10},
    "60 neurons": {"hidden": 60},
    "1-D": {"dims": 1.0},
    "3-D": {"dims": 3.0},
    "free delays": {"dims": math.inf},
    "positions as slow as weights": {"position_factor": 1.0},
    "positions thirty times as fast": {"position_factor": 30.0},
    "first places close together": {"sigma": 0.25},
    "first places far apart": {"sigma": 1.5},
}


def score(setting: Setting, data: PointSplits, folder: Path, case: str) -> float:
    """Train once, or remember; return the mean accuracy on validation over the last five epochs."""
    settings = {**setting.record(), "case": case, "variant": "frozen" if setting.frozen else "learned"}
    path = record_path(folder, settings, f"{case}_{settings['variant']}_{setting.seed}".replace(" ", "_"))

    def run() -> dict[str, Any]:
        state = path.with_suffix(".safetensors")
        net, history = train(setting, data, state)
        for left in (state, state.with_name(f"{state.name}.best")):
            left.unlink(missing_ok=True)
        curve = [one["validation"] for one in history]
        spent = sum(one["cpu_s"] for one in history)
        return {
            "validation": statistics.mean(curve[-5:]), "curve": curve, "parameters": net.numbers()[0], "cpu_s": spent,
        }  # fmt: skip

    return remembered(path, settings, run)["validation"]


def main() -> None:
    """Run what is missing, then write the table and the picture."""
    parser = command_line(__doc__, out="runs/spatial_regime", epochs=True, seeds=(2, 2))
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    given = read_options(parser)
    base = Setting(rate=RATE, epochs=given.epochs or EPOCHS)
    data = {seed: YinYang().points(seed) for seed in range(given.seeds)}
    found = {}
    for case in given.cases:
        found[case] = []
        for seed, points in data.items():
            one = dataclasses.replace(base, seed=seed, **CASES[case])
            frozen = score(dataclasses.replace(one, frozen=True), points, given.out, case)
            found[case].append(score(one, points, given.out, case) - frozen)
    title = f"Yin-Yang, {base.epochs} epochs, seeds: {given.seeds}"
    text = f"Learned against frozen positions: {title}\n\n{differences_table(found)}\n"
    (given.out / "table.md").write_text(text)
    print(text)
    differences_picture(found, title, given.out / "regime.png")


if __name__ == "__main__":
    main()
