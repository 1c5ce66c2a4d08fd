"""The report of a comparison: one HTML file with its pictures inside, and the protocol in words."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from delaykit.sealed import commit
from delaykit_lab.comparison.findings import STATES
from delaykit_lab.comparison.pictures import draw_comparison
from delaykit_lab.comparison.rows import ROWS
from delaykit_lab.records.statistics import percent


def write_report(results: dict[str, Any], timing: dict[str, Any], folder: Path) -> Path:
    """Write ``report.html`` and the pictures.

    Args:
        results: what ``results.json`` holds.
        timing: seconds of each run.
        folder: where to write.

    Returns:
        The file.
    """
    import jinja2

    drawn = draw_comparison(results, timing, folder)
    pictures = {path.stem: base64.b64encode(path.read_bytes()).decode() for path in drawn}
    source = Path(__file__).with_name("report.html.jinja").read_text(encoding="utf-8")
    cells = {(cell["recurrent"], cell["forward"]): f"{100 * cell['mean']:.1f} ± {100 * cell['error']:.1f} %"
             for cell in results["findings"]["factorial"]}  # fmt: skip
    text = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(source).render(
        results=results, setup=results["comparison"], pictures=pictures, protocol=protocol(results),
        table=table_rows(results, timing), factorial=cells if len(cells) > 1 else {}, states=STATES,
    )  # fmt: skip
    path = folder / "report.html"
    commit(path, text.encode())
    return path


def table_rows(results: dict[str, Any], timing: dict[str, Any]) -> list[list[str]]:
    """Return the cells of the table: method, layers, parameters, accuracies, spikes, operations, time, rate."""
    rows = []
    for row in results["rows"]:
        start = [row["name"], ", ".join(map(str, row["sizes"])) or "-"]
        if any(run["failed"] for run in row["runs"]):
            rows.append([*start, "-", "diverged", "-", "-", "-", "-", f"{row['rate']:g}"])
            continue
        runs = row["runs"]
        seconds = [timing[f"{row['name']}, seed {seed}"] for seed in range(len(runs))]
        delayed = row["recurrent"] != "none" or row["forward"] != "none"
        whole = percent([run["test_whole"] for run in runs]) if delayed else "-"
        rows.append([
            *start, str(runs[0]["parameters"]), percent([run["test"] for run in runs]), whole,
            _mean([run["spikes"] for run in runs]), _mean([run["synaptic_operations"] for run in runs]),
            _mean(seconds, 1), f"{row['rate']:g}",
        ])  # fmt: skip
    return [[cell.replace("+-", "±") for cell in row] for row in rows]


def protocol(results: dict[str, Any]) -> list[str]:
    """Say in words how the numbers came about."""
    setup, samples = results["comparison"], results["samples"]
    step = "a step is no fixed time" if results["step_ms"] is None else f"a step is {results['step_ms']:g} ms"
    options = _words(setup["options"]) or "the defaults of `train`"
    budget = "" if results["budget"] is None else f" The budget is {results['budget']:.6g}."
    equal = {
        "parameters": "Every row but `none` is as wide as it can be within one number of parameters, frozen delays "
        "counted.",
        "synaptic-operations": "Every row but `none` is as wide as it can be within one number of synaptic operations "
        "a sample, measured before training; those after training are in the table.",
        "time": "Every row but `none` is as wide as it can be within one time of a training step, measured once.",
        "nothing": "All rows have the model's own sizes.",
    }[setup["equal"]]  # fmt: skip
    rates = ", ".join(f"{rate:g}" for rate in setup["rates"])
    bins = "Several spikes of a channel in one step are one number, its count; they are not made 0 or 1."
    lines = [
        f"Data: {setup['task']} with {_words(setup['set']) or 'its own options'}; {step}. {bins}",
        f"Splits: {samples['train']} training, {samples['validation']} validation and {samples['test']} test samples.",
        f"Network: {setup['model']}; delays of up to {setup['max_delay']} steps. {equal}{budget}",
        f"Training, alike for all rows: {setup['epochs']} epochs, {options}, learning rate along half a cosine, delays "
        f"and the like at {setup['delay_rate']:g} times the rate of weights.",
        f"Chosen on validation data, by the mean over seeds after the last epoch: the learning rate of each row, among "
        f"{rates}. Nothing else was chosen.",
        f"The test set was scored once a run, after the last epoch of {setup['seeds']} runs on seeds 0 to "
        f"{setup['seeds'] - 1}, and once more with the delays rounded to whole steps; no epoch was chosen. Rows are "
        "paired by seed: equal data and order of samples.",
        "Intervals: 95 %, Student's, of paired differences over seeds; they do not cover the choice of the test set.",
    ]
    said = [f"{row['name']}: {ROWS[row['name']].says}" for row in results["rows"] if row["name"] in ROWS]
    return lines + ([f"Rows: {'; '.join(said)}."] if said else [])


def _words(options: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in options.items())


def _mean(values: list[Any], digits: int = 0) -> str:
    if any(value is None for value in values):
        return "-"
    return f"{sum(values) / len(values):.{digits}f}"
