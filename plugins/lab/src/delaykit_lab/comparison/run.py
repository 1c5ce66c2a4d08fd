"""Run a comparison: widths, then all seeds at all rates, a choice on validation, and the test set scored once."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import delaykit as dk
from delaykit import checks
from delaykit_lab.comparison.budget import search_widths
from delaykit_lab.comparison.config import Comparison
from delaykit_lab.comparison.findings import findings
from delaykit_lab.comparison.workers import BACKENDS, STATES, run_all
from delaykit_lab.declared import path_of
from delaykit_lab.records.files import prepare_folder, write_json, writing
from delaykit_lab.records.finished import read_record, remembered
from delaykit_lab.training.config import make_task

KEPT = ("validation", "train", "test", "test_whole", "parameters", "spikes", "synaptic_operations", "failed")
Tell = Callable[[str], None]


def compare(
    comparison: Comparison, out: str | Path, *, workers: int = 1, backend: str = "processes",
    cluster: str | None = None, resume: bool = False, tell: Tell | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Compare methods; write ``results.json``, ``timing.json``, pictures and ``report.html`` to ``out``.

    Args:
        comparison: what to compare.
        out: folder.
        workers: runs at a time.
        backend: ``processes`` or ``submitit``, see :func:`~delaykit_lab.comparison.workers.run_all`.
        cluster: of submitit.
        resume: go on with what is in ``out``: finished runs are not run again, and the results are the same.
        tell: called with a line whenever something is finished.

    Returns:
        What ``results.json`` holds: nothing in it depends on time or on where it was interrupted.

    Raises:
        ConfigError: ``out`` holds a comparison without ``resume``, it cannot be written, or a budget cannot be met.
        CheckpointError: ``out`` holds another comparison.
        TrainingError: a worker died.
    """
    if not isinstance(comparison, Comparison) or not isinstance(out, (str, Path)):
        found = f"a {type(comparison).__name__} and a {type(out).__name__}"
        raise dk.ConfigError("compare", found, "a Comparison and the folder for its results", "pass them in this order")
    _check_run(workers, backend, resume)
    folder, say = path_of("compare out", out), tell or (lambda line: None)
    task = make_task(comparison.task, comparison.set)
    splits = task.splits(0)
    if comparison.max_delay is None:
        steps = splits.train.spikes.shape[0]
        comparison = dataclasses.replace(comparison, max_delay=max(2, min(25, steps // 3)))
    with writing(folder):
        prepare_folder(folder, resume, "comparison")
        plan = _planned(folder / "plan.json", comparison, lambda: search_widths(comparison, task, splits))
        sizes = {name: tuple(found) for name, found in plan["sizes"].items()}
        say(f"sizes: {', '.join(f'{name} {list(found)}' for name, found in sizes.items())}")
        go = {"workers": workers, "backend": backend, "cluster": cluster}
        rows, seeds = comparison.rows(), range(comparison.seeds)
        asked = [(row, rate, seed) for row in rows for rate in comparison.rates for seed in seeds]
        units = [(comparison.job(row, sizes[row.name], rate, seed).to_json(), False) for row, rate, seed in asked]
        trained = run_all(units, folder, on_done=lambda record: say("a run is trained"), **go)  # type: ignore[arg-type]
        tried: dict[str, dict[float, float]] = {row.name: dict.fromkeys(comparison.rates, 0.0) for row in rows}
        for (row, rate, _), found in zip(asked, trained, strict=True):
            tried[row.name][rate] += found["validation"] / comparison.seeds
        rates = {name: max((mean, rate) for rate, mean in means.items())[1] for name, means in tried.items()}
        wanted = [(row, seed) for row in rows for seed in seeds]
        units = [(comparison.job(row, sizes[row.name], rates[row.name], seed).to_json(), True) for row, seed in wanted]
        records = run_all(units, folder, on_done=lambda record: say("a test set is scored"), **go)  # type: ignore[arg-type]
        results = _results(comparison, plan, rates, tried, wanted, records)
        write_json(folder / "results.json", results)
        runs = zip(wanted, records, strict=True)
        timing = {f"{row.name}, seed {seed}": record.get("seconds") for (row, seed), record in runs}
        write_json(folder / "timing.json", timing)
        from delaykit_lab.comparison.report import write_report

        write_report(results, timing, folder)
        shutil.rmtree(folder / STATES, ignore_errors=True)
    return results


def _check_run(workers: int, backend: str, resume: bool) -> None:
    checks.whole("compare workers", workers, least=1)
    checks.choice("compare backend", backend, BACKENDS)
    checks.flag("compare resume", resume)


def _planned(path: Path, comparison: Comparison, search: Callable[[], Any]) -> dict[str, Any]:
    """Return the widths that were found before, or find them now; times differ from search to search."""
    wanted = json.loads(json.dumps(comparison.to_json()))
    if path.exists():
        known = read_record(path)["settings"]
        if known != wanted:
            differ = ", ".join(f"{k} {known.get(k)!r}" for k in wanted if known.get(k) != wanted[k])
            found = f"another comparison ({differ})"
            raise dk.CheckpointError(str(path), found, "the same settings", "use the same words, or another --out")

    def plan() -> dict[str, Any]:
        sizes, budget = search()
        return {"sizes": {name: list(found) for name, found in sizes.items()}, "budget": budget}

    return remembered(path, wanted, plan)


def _results(
    comparison: Comparison, plan: dict[str, Any], rates: dict[str, float], tried: dict[str, dict[float, float]],
    wanted: list[Any], records: list[Any],
) -> dict[str, Any]:  # fmt: skip
    first = next((record for record in records if "failed" not in record), None)
    if first is None:
        fix = "lower --rates, or train one row with `delaykit train` to see why"
        raise dk.TrainingError("compare", f"no run that finished ({records[0]['failed']})", "one at least", fix)
    rows = []
    for row in comparison.rows():
        runs = [record for (which, _), record in zip(wanted, records, strict=True) if which.name == row.name]
        rows.append({
            "name": row.name, "methods": list(row.methods), "neuron": row.neuron, "recurrent": row.recurrent,
            "forward": row.forward, "sizes": plan["sizes"][row.name], "rate": rates[row.name],
            "tried": {str(rate): mean for rate, mean in tried[row.name].items()},
            "runs": [{name: record.get(name) for name in KEPT} for record in runs],
        })  # fmt: skip
    out = {"comparison": comparison.to_json(), "title": first["title"], "step_ms": first["step_ms"],
           "chance": first["chance"], "samples": first["samples"], "budget": plan["budget"], "rows": rows}  # fmt: skip
    return out | {"findings": findings(out)}
