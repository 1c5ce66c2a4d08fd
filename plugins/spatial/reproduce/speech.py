"""Spoken digits by a recurrent layer whose delays are positions in 0, 1, 2, 3 and infinite dims; exact gradients.

    python plugins/spatial/reproduce/speech.py --data FOLDER           # a labelled reduction, under a minute a run
    python plugins/spatial/reproduce/speech.py --data FOLDER --coarse  # all samples, Table 2, but 5 ms and 64 neurons
    python plugins/spatial/reproduce/speech.py --data FOLDER --full    # 700 channels, 300 neurons, steps of 0.5 ms
    ... --hidden 16 32 64                # figures 3D and 3E: accuracy against neurons, and against parameters
    ... --dims 2 --tortuosity 0.5 1 2    # figure S4: longer paths, how much of the extra length is used
    ... --dims 2 --adex                  # figure S5: adaptive exponential neurons, and when they fire

Input and recurrent connection have delays, and share the positions of the hidden neurons. Times of spikes have exact
gradients; the readout, which counts spikes, a SuperSpike surrogate. Loss: cross-entropy of the counts plus
``sum_h (f_h - 0.01)^2`` on the neurons' rates in spikes per ms.

``--coarse`` and ``--full`` train as Table 2 of the paper says: 30 epochs, batch 32, rate 1e-3 with 500 steps of warm-up
and a cosine to a tenth at step 10 000, positions and delays ten times as fast. In the reduction the same three pairs of
rates are tried for every row in one short run each, on held-out samples; then all seeds run with the best.
Of each run the epoch that was best on validation is kept, and the test file is looked at once, with that. Files that
are not the published SHD must not be reported as SHD. Finished runs are kept under ``--out``, interrupted ones go on
where they were.
"""

from __future__ import annotations

import dataclasses
import math
from argparse import Namespace
from pathlib import Path
from typing import Any

from common.records import dims_name, table
from common.speech_net import Setting
from common.speech_training import run, tuned

from delaykit_lab import command_line, data_folder, read_options
from delaykit_lab.tasks.spike_files import SpikeFiles

DIMS = (0.0, 1.0, 2.0, 3.0, math.inf)


def setting_of(full: bool, coarse: bool, epochs: int | None = None, limit: int | None = None) -> Setting:
    """Return the reduction, Table 2 in coarse steps, or the paper's size."""
    base = Setting()
    if full or coarse:
        base = dataclasses.replace(base, limit=None, rate=1e-3, position_factor=10.0, epochs=30)
    if full:
        base = dataclasses.replace(base, hidden=300, channels=700, dt=0.5, tau_syn=2.0, tau_mem=10.0, gain=1.0)
        base = dataclasses.replace(base, min_slope=1e-3)
    return dataclasses.replace(base, epochs=epochs or base.epochs, limit=limit or base.limit)


def kind_of(setting: Setting, full: bool, coarse: bool) -> str:
    """Say what is the paper's and what is not."""
    if full:
        return "the paper's size"
    if coarse:
        return f"a reduction: Table 2's recipe, but steps of {setting.dt:g} ms, {setting.epochs} epochs"
    return f"a reduction: {setting.limit} samples, {setting.epochs} epochs"


def networks(base: Setting, given: Namespace) -> dict[str, Setting]:
    """Return what is compared, by name; with more than one number of hidden neurons that ends the name."""
    sizes = given.hidden or [base.hidden]
    wanted: dict[str, Setting] = {}
    for hidden in sizes:
        at = dataclasses.replace(base, hidden=hidden)
        end = f", {hidden}" if len(sizes) > 1 else ""
        for dims in given.dims:
            wanted[f"{dims_name(dims)}-D{end}"] = dataclasses.replace(at, dims=dims)
        at = dataclasses.replace(at, dims=2.0)
        if given.frozen:
            wanted[f"2-D, frozen{end}"] = dataclasses.replace(at, frozen=True)
        for eps in given.tortuosity:
            wanted[f"2-D, eps {eps:g}{end}"] = dataclasses.replace(at, tortuosity=eps)
        if given.adex:
            wanted[f"2-D, AdEx{end}"] = dataclasses.replace(at, adex=True)
        for slope in given.min_slope:
            wanted[f"2-D, min_slope {slope:g}{end}"] = dataclasses.replace(at, min_slope=slope)
    return wanted


def main() -> None:
    """Run what is missing, then write the table and the picture."""
    data = "folder with a train and a test file in SHD's layout"
    full = "the paper's size and steps (days)"
    parser = command_line(__doc__, out="runs/spatial_speech", full=full, epochs=True, data=data)
    parser.add_argument("--dims", type=float, nargs="+", default=list(DIMS))
    parser.add_argument("--hidden", type=int, nargs="+", help="recurrent neurons (default: the configuration's)")
    parser.add_argument("--frozen", action="store_true", help="add 2-D with positions as they started")
    parser.add_argument("--coarse", action="store_true", help="all samples and Table 2, in steps of 5 ms")
    parser.add_argument("--limit", type=int, help="training samples other than the configuration's")
    parser.add_argument("--tortuosity", type=float, nargs="+", default=[], help="add 2-D with longer paths: eps")
    parser.add_argument("--adex", action="store_true", help="add 2-D with adaptive exponential neurons")
    parser.add_argument("--min-slope", type=float, nargs="+", default=[], help="add 2-D with other guards")
    given = read_options(parser)
    folder = data_folder(given)
    base = setting_of(given.full, given.coarse, given.epochs, given.limit)
    task = SpikeFiles(folder, dt_ms=base.dt, channels=base.channels, duration_ms=base.duration, limit=base.limit)
    rows: dict[str, list[dict[str, Any]]] = {}
    for name, setting in networks(base, given).items():
        setting = setting if given.full or given.coarse else tuned(setting, task, given.out)
        seeds = [dataclasses.replace(setting, seed=seed) for seed in range(given.seeds)]
        rows[name] = [run(one, task, given.out, judge=True) for one in seeds]
    sizes = " ".join(map(str, given.hidden or [base.hidden]))
    title = f"{task.title()}, {sizes} recurrent neurons ({kind_of(base, given.full, given.coarse)})"
    text = f"{title}\n\n{table(rows)}\n"
    (given.out / "table.md").write_text(text)
    print(text)
    pictures(rows, title, given.out, many=len(given.hidden or []) > 1)


def pictures(rows: dict[str, list[dict[str, Any]]], title: str, folder: Path, many: bool) -> None:
    """Draw accuracy against dims, or against sizes if there are many; used length of paths and AdEx where there are."""
    from common.plotting import against_dims, against_size, headed
    from common.speech_pictures import stages, tortuous
    from matplotlib import pyplot

    from delaykit.plotting import style

    shown = {name: runs for name, runs in rows.items() if "min_slope" not in name}
    with style():
        if many:
            figure = headed(against_size(shown), title)
            figure.savefig(folder / "accuracy_against_size.png")
        else:
            ax = against_dims({name: [one["test"] for one in runs] for name, runs in shown.items()}, chance=0.05)
            headed(ax.figure, title).savefig(folder / "accuracy_against_dims.png")
        bent = {name: runs[0] for name, runs in shown.items() if "used_of_extra" in runs[0]}
        if bent:
            tortuous(bent, folder / "tortuous.png")
        if "2-D, AdEx" in shown and not many:
            stages({name: shown[name][0] for name in ("2-D", "2-D, AdEx") if name in shown}, folder / "adex.png")
        pyplot.close("all")


if __name__ == "__main__":
    main()
