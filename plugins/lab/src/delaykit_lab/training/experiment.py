"""One configuration on several seeds: a folder with a record for each, logs, pictures and the trained networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import delaykit as dk
from delaykit import checks
from delaykit.sealed import read_file, unseal
from delaykit_lab.declared import path_of
from delaykit_lab.records.files import prepare_folder, write_json, writing
from delaykit_lab.records.finished import record_path, remembered
from delaykit_lab.records.provenance import provenance
from delaykit_lab.training.config import Job
from delaykit_lab.training.log import Log
from delaykit_lab.training.trainer import Trained, make_accelerator, train_job

if TYPE_CHECKING:
    from accelerate import Accelerator

OnEpoch = Callable[[int, dict[str, Any]], None]


def train(
    job: Job, out: str | Path, *, seeds: int = 1, device: str = "auto", resume: bool = False,
    on_epoch: OnEpoch | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Train ``job`` on seeds ``job.seed .. job.seed + seeds - 1`` and keep everything in ``out``.

    ``out`` then holds ``results.json`` (all records), ``log.jsonl`` (a line an epoch), ``seed0.json`` and so on, the
    networks (``net0``, as ``DelayTraining.save`` writes them), ``learning.png`` and ``delays.png``, and TensorBoard's
    files in ``tensorboard`` if it is installed.

    Args:
        job: what to train; ``job.seed`` is the first seed.
        out: the folder.
        seeds: number of runs, >= 1.
        device: ``auto``, ``cpu`` or ``cuda``.
        resume: go on with what is in ``out``; finished runs are not run again.
        on_epoch: called with the seed and each new epoch's record.

    Returns:
        One record a seed.

    Raises:
        ConfigError: ``out`` holds an earlier training and ``resume`` is False, or cannot be written.

    Example:
        >>> import tempfile
        >>> job = Job("moving-wave", "snn:8", ("free:synaptic,max_delay=16",), {"samples": 64, "held": 64}, epochs=1)
        >>> [record] = train(job, tempfile.mkdtemp(), device="cpu")
        >>> sorted(record)[:4]
        ['chance', 'delays', 'history', 'job']
    """
    if not isinstance(job, Job) or not isinstance(out, (str, Path)):
        found = f"a {type(job).__name__} and a {type(out).__name__}"
        raise dk.ConfigError("train", found, "a Job and the folder for its results", "pass them in this order")
    checks.whole("train seeds", seeds, least=1)
    checks.flag("train resume", resume)
    folder = path_of("train out", out)
    accelerator = make_accelerator(device)
    with writing(folder):
        if accelerator.is_main_process:
            prepare_folder(folder, resume)
        accelerator.wait_for_everyone()
        records = []
        with Log(folder, accelerator.is_main_process) as log:
            for number in range(seeds):
                one = dataclasses.replace(job, seed=job.seed + number)
                records.append(_one(one, folder, accelerator, log, on_epoch))
        if accelerator.is_main_process:
            write_json(folder / "results.json", {"runs": records, "made_by": provenance()})
            from delaykit_lab.training.pictures import draw

            draw(records, folder)
    return records


def _one(job: Job, folder: Path, accelerator: Accelerator, log: Log, on_epoch: OnEpoch | None) -> dict[str, Any]:
    state = folder / "state" / record_path(folder, job.to_json(), f"seed{job.seed}").with_suffix(".safetensors").name
    path = folder / f"seed{job.seed}.json"

    def watch(record: dict[str, Any]) -> None:
        log.write(job.seed, record)
        if on_epoch is not None:
            on_epoch(job.seed, record)

    def run() -> dict[str, Any]:
        trained: Trained = train_job(job, state=state, watch=watch, accelerator=accelerator)
        for record in trained.record["history"]:
            log.write(job.seed, record)  # what a run that was stopped between its state and its line left out
        if accelerator.is_main_process:
            from delaykit_lab.training.callbacks import save_model_

            save_model_(trained.net, folder / f"net{job.seed}")
        return trained.record

    if accelerator.is_main_process:
        networks = [folder / f"net{job.seed}{ending}" for ending in (".safetensors", ".model.safetensors")]
        if path.exists() and not any(file.exists() for file in networks):
            found, fix = "a finished run whose network is gone", f"put it back, or delete {path.name} to train it again"
            raise dk.CheckpointError(str(path), found, f"{networks[0].name} beside it", fix)
        for file in networks if path.is_file() else ():
            if file.exists():
                unseal(read_file(file), str(file), former="")  # a damaged one is told
        record = remembered(path, job.to_json(), run)
        for one in record["history"]:
            log.write(job.seed, one)  # where the log was damaged
        state.unlink(missing_ok=True)
        return record
    return remembered(path, job.to_json(), run) if path.exists() else run()
