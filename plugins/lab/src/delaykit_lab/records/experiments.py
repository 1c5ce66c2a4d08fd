"""The experiments of the papers: which script, with which options, on which data, and how long it takes.

They are listed in ``results/experiments.json`` of a checkout, whose scripts are not part of any wheel. Every run leaves
a record in ``results/<paper>/<experiment>/`` (:mod:`delaykit_lab.records.finished`), and what has one is not run again.
"""

from __future__ import annotations

import dataclasses
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from delaykit import DataError
from delaykit_lab.data.spike_hdf5 import locate
from delaykit_lab.records.files import read_json
from delaykit_lab.records.finished import read_record

LIST = Path("results") / "experiments.json"
NEEDS = {
    "speech": "a folder with a train and a test file in SHD's HDF5 layout",
    "mnist": "a folder with MNIST's four idx files",
    "shd": "a folder with SHD/shd_train.h5 and SHD/shd_test.h5 as published",
    "ssc": "a folder with SSC/ssc_train.h5, SSC/ssc_valid.h5 and SSC/ssc_test.h5 as published",
}
SPLITS = {"shd": ("train", "test"), "ssc": ("train", "valid", "test")}


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One experiment at one scale.

    Args:
        paper: delrec, spatial, hetsyn, motifs or timing.
        name: of its folder of records; a full one ends in ``_full``.
        scale: ``cpu`` or ``full``.
        script: below the checkout.
        options: words of its command line.
        data: a key of :data:`NEEDS`; None: nothing is read.
        cpu_hours: estimate of one core's time.
        what: one line for people.
    """

    paper: str
    name: str
    scale: str
    script: str
    options: tuple[str, ...]
    data: str | None
    cpu_hours: float
    what: str

    def folder(self, source: Path) -> Path:
        """Return where its records are."""
        return source / "results" / self.paper / self.name

    def command(self) -> str:
        """Return the command that runs it, for a reader."""
        data = "" if self.data is None else " --data FOLDER"
        return f"delaykit reproduce {self.paper} --only {self.name} --scale {self.scale}{data}"


def find_source(start: Path) -> Path:
    """Return the checkout that holds a folder.

    Raises:
        DataError: there is none; wheels hold no scripts.
    """
    for folder in (start.resolve(), *start.resolve().parents):
        if (folder / LIST).is_file():
            return folder
    found = f"no {LIST} here or above"
    raise DataError(str(start), found, "a checkout of delaykit", "run it there: wheels hold no scripts")


def experiments(source: Path, scale: str) -> list[Experiment]:
    """Read the list of a checkout; an entry without that scale is left out."""
    found = []
    for one in read_json(source / LIST, list):
        if scale in one:
            name = one["name"] + ("_full" if scale == "full" else "")
            options = tuple(shlex.split(one[scale]["options"]))
            kept = {key: one[key] for key in ("paper", "script", "data", "what")}
            found.append(Experiment(name=name, scale=scale, options=options, cpu_hours=one[scale]["cpu_hours"], **kept))
    return found


def chosen(source: Path, scale: str, paper: str | None, only: str | None) -> list[Experiment]:
    """Return the experiments of a paper (None: of all), or the one of a name, written with ``_full`` or without.

    Raises:
        DataError: there is none at this scale.
    """
    found = [one for one in experiments(source, scale) if paper in (None, one.paper)]
    if only is not None:
        found = [one for one in found if only.removesuffix("_full") == one.name.removesuffix("_full")]
        if only.endswith("_full") and scale != "full":
            found = []
    if not found:
        fix = f"--list --scale {scale} shows those there are" + (", or --scale full" if scale != "full" else "")
        if scale != "full" and only is not None and any(one.name == only for one in experiments(source, "full")):
            fix = f"pass --scale full: {only} is the paper's size"
        raise DataError(f"delaykit reproduce, {only or paper}", f"no such experiment at scale {scale}", "one", fix)
    return found


def data_for(kind: str, folder: Path | None) -> Path | None:
    """Return the folder or its subfolder that holds one kind of data, None where there is none.

    Example:
        >>> data_for("mnist", None) is None
        True
    """
    if folder is None:
        return None
    if kind in SPLITS:
        files = [folder / kind.upper() / f"{kind}_{split}.h5" for split in SPLITS[kind]]
        return folder if all(file.is_file() for file in files) else None
    if kind == "mnist":
        places = [place for place in (folder, folder / "mnist") if any(place.glob("train-images*"))]
        return places[0] if places else None
    try:
        locate(folder, "train")
    except DataError:
        return None
    return folder


def run(
    experiment: Experiment, source: Path, data: Path | None, out: Path | None = None,
    call: Callable[[list[str]], int] = subprocess.call,
) -> str:  # fmt: skip
    """Run one experiment, gently, or go on with it.

    Args:
        experiment: from :func:`experiments`.
        source: the checkout.
        data: folder of ``--data``.
        out: folder for the records; None: that of the checkout.
        call: starts a process and returns its exit status.

    Returns:
        ``done``, ``failed (status)`` or ``not run: needs ...``.
    """
    words = [sys.executable, str(source / experiment.script), *experiment.options]
    words += ["--out", str(out or experiment.folder(source))]
    if experiment.data is not None:
        place = data_for(experiment.data, data)
        if place is None:
            return f"not run: needs {NEEDS[experiment.data]}{_why(experiment.data, data)}"
        words += ["--data", str(place)]
    nice = ["nice", "-n", "10"] if shutil.which("nice") else []
    status = call([*nice, *words])
    return "done" if status == 0 else f"failed ({status})"


def _why(kind: str, folder: Path | None) -> str:
    """Say what stands in the way of recordings that are nearly there."""
    if kind != "speech" or folder is None:
        return ""
    try:
        locate(folder, "train")
    except DataError as problem:
        return f" ({problem})"
    return ""


def records(folder: Path) -> list[dict[str, Any]]:
    """Read the records of an experiment, those of tuning runs left out.

    Raises:
        CheckpointError: one is damaged, or was changed by hand.
    """
    return [read_record(path) for path in sorted(folder.glob("*.json"))]


def spent_hours(folder: Path) -> float:
    """Add up the process time of all records, tuning runs included."""
    return sum(read_json(path).get("cpu_s", 0.0) for path in folder.rglob("*.json")) / 3600


def lookup(values: Mapping[str, Any], path: str) -> Any:
    """Follow a dotted path; None where it leads nowhere.

    Example:
        >>> lookup({"plan": {"epochs": 10}}, "plan.epochs")
        10
    """
    found: Any = values
    for key in path.split("."):
        if not isinstance(found, Mapping) or key not in found:
            return None
        found = found[key]
    return found
