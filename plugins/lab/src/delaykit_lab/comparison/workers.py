"""Runs side by side, each in its own process: here, or on a cluster through submitit. Every finished one is kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import delaykit as dk
from delaykit_lab.records.finished import record_path, remembered
from delaykit_lab.training.config import Job

BACKENDS = ("processes", "submitit")
STATES = "states"  # of trainings, for going on and for scoring
Unit = tuple[dict[str, Any], bool]  # a job's JSON values, and whether its test set is scored
Done = Callable[[dict[str, Any]], None]


def unit_path(folder: Path, unit: Unit) -> Path:
    """Return the record's file of a run."""
    job, score_test = unit
    return record_path(folder / "runs", {"job": job, "score_test": score_test}, f"{job['model'].partition(':')[0]}")


def run_unit(unit: Unit, folder: str) -> dict[str, Any]:
    """Train one job, or return its record if it is finished; what it needs is imported in its own process.

    A training that diverges is a result, too: its record says why, and its validation accuracy is 0. The state of a
    training stays until its test set was scored, so that scoring it later trains nothing again.
    """
    import torch

    from delaykit_lab.training.trainer import train_job

    torch.set_num_threads(1)
    job, score_test = unit
    path = unit_path(Path(folder), unit)
    state = Path(folder) / STATES / record_path(Path(), job).with_suffix(".safetensors").name

    def run() -> dict[str, Any]:
        try:
            return train_job(Job.from_json(job), state=state, score_test=score_test).record
        except dk.TrainingError as problem:
            return {"failed": str(problem), "validation": 0.0}

    record = remembered(path, {"job": job, "score_test": score_test}, run)
    if score_test:
        state.unlink(missing_ok=True)
    return record


def run_all(
    units: Iterable[Unit], folder: Path, *, workers: int = 1, backend: str = "processes",
    cluster: str | None = None, on_done: Done | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Run all units, finished ones not again, and return their records in order.

    Args:
        units: what to run.
        folder: where records are kept.
        workers: processes at a time, >= 1.
        backend: ``processes`` or ``submitit``.
        cluster: of submitit: ``slurm``, ``local``; None: slurm if it is there.
        on_done: called with each record.

    Raises:
        ConfigError: no such backend, or submitit is not installed.
        TrainingError: a worker died.
    """
    asked = list(units)
    todo = list({unit_path(folder, unit): unit for unit in asked}.values())  # rows may come to the same network
    done: Done = on_done or (lambda record: None)
    if backend not in BACKENDS:
        raise dk.ConfigError("backend", repr(backend), f"one of {', '.join(BACKENDS)}", "name one of them")
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    if backend == "submitit":
        records = _submitted(todo, folder, cluster, done)
    elif workers > 1:
        records = _in_processes(todo, folder, workers, done)
    else:
        records = []
        for unit in todo:
            records.append(run_unit(unit, str(folder)))
            done(records[-1])
    found = {unit_path(folder, unit): record for unit, record in zip(todo, records, strict=True)}
    return [found[unit_path(folder, unit)] for unit in asked]


def _in_processes(todo: list[Unit], folder: Path, workers: int, done: Done) -> list[dict[str, Any]]:
    from concurrent.futures import as_completed
    from concurrent.futures.process import BrokenProcessPool

    from delaykit_lab.comparison.pool import worker_pool

    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by the children, who must not fight for cores
    try:
        with worker_pool(workers) as pool:
            futures = [pool.submit(run_unit, unit, str(folder)) for unit in todo]
            for future in as_completed(futures):
                done(future.result())
            return [future.result() for future in futures]
    except BrokenProcessPool:
        kept = sum(unit_path(folder, unit).exists() for unit in todo)
        found = f"a worker process that died (killed, or out of memory); {kept} of {len(todo)} runs are finished"
        fix = "pass --resume to go on; with fewer --workers if memory was short"
        raise dk.TrainingError("compare", found, "workers that live", fix) from None


def _submitted(todo: list[Unit], folder: Path, cluster: str | None, done: Done) -> list[dict[str, Any]]:
    try:
        import submitit
    except ModuleNotFoundError as error:
        if error.name != "submitit":
            raise
        found, fix = "submitit not installed", "pip install delaykit-lab[cluster]"
        raise dk.ConfigError("backend", found, "it, for --backend submitit", fix) from None
    try:
        executor = submitit.AutoExecutor(folder=folder / "submitit", cluster=cluster)
    except ValueError as problem:
        raise dk.ConfigError("cluster", f"{cluster!r} ({problem})", "slurm or local", "name one of them") from None
    executor.update_parameters(timeout_min=24 * 60, name="delaykit", cpus_per_task=1)
    jobs = [executor.submit(run_unit, unit, str(folder)) for unit in todo]
    records = []
    try:
        for job in jobs:
            records.append(job.result())
            done(records[-1])
    except BaseException as problem:
        for job in jobs:  # --resume submits them again, and not beside themselves
            job.cancel(check=False)
        if not isinstance(problem, (submitit.core.utils.UncompletedJobError, submitit.core.utils.FailedJobError)):
            raise
        last = str(problem).strip().splitlines()[-1]
        found = f"a job that did not finish ({last})"
        fix = "see the logs in submitit/, then pass --resume"
        raise dk.TrainingError("compare", found, "finished jobs", fix) from None
    return records
