"""JapaneseVowels: nine speakers saying two vowels, twelve cepstral coefficients a frame.

Real recordings that ship inside sktime's wheel: 270 utterances to train on, 370 to test on, 7 to 29 frames each.
The text files are read directly: nothing is downloaded and sktime itself is not imported.

Reference: Kudo, Toyama, Shimbo 1999, "Multidimensional curve classification using passing-through regions",
Pattern Recognition Letters 20(11-13), 1103-1111.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from delaykit import DataError, checks
from delaykit.sealed import read_file
from delaykit_lab.declared import path_of

CHANNELS, CLASSES, MAX_FRAMES = 12, 9, 29
UTTERANCES = {"train": 270, "test": 370}


@dataclasses.dataclass(frozen=True)
class Utterances:
    """Cepstral series of different lengths.

    Args:
        series: one array ``(frame, 12)`` an utterance, float64.
        labels: speaker of each, 0 .. 8, ``(utterance,)``.
    """

    series: list[NDArray[np.float64]]
    labels: NDArray[np.int64]


def installed_folder() -> Path:
    """Folder of the data inside the installed sktime package, found without importing it.

    Raises:
        DataError: sktime is not installed, or its wheel has no such data.
    """
    spec = importlib.util.find_spec("sktime")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "JapaneseVowels", "sktime not installed", "its wheel, which carries the data", "pip install sktime"
        )
    folder = Path(next(iter(spec.submodule_search_locations))) / "datasets" / "data" / "JapaneseVowels"
    if not folder.is_dir():
        raise DataError(str(folder), "no such folder", "the data that sktime's wheel carries", "pip install -U sktime")
    return folder


@checks.annotated
def read_utterances(split: str, folder: str | Path | None = None) -> Utterances:
    """Read one of the two published parts.

    Args:
        split: ``"train"`` (270 utterances) or ``"test"`` (370).
        folder: where ``JapaneseVowels_TRAIN.ts`` and ``_TEST.ts`` lie; None: inside the installed sktime.

    Returns:
        Utterances in the order of the file.

    Raises:
        DataError: the file is missing, truncated or of another form.

    Example:
        >>> train = read_utterances("train")
        >>> len(train.series), train.series[0].shape
        (270, (20, 12))
    """
    if split not in UTTERANCES:
        raise DataError("JapaneseVowels", f"split {split!r}", "'train' or 'test'", "name one of the two")
    path = path_of("read_utterances folder", folder or installed_folder()) / f"JapaneseVowels_{split.upper()}.ts"
    try:
        lines = read_file(path).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise DataError(
            str(path), f"a file that cannot be read ({problem})", "a .ts text file", "pip install -U sktime"
        ) from problem
    rows = [line for line in lines if line.strip() and line[0] not in "#@"]
    parsed = [_parse(line, path, number) for number, line in enumerate(rows, start=1)]
    if len(parsed) != UTTERANCES[split]:
        raise DataError(
            str(path), f"{len(parsed)} utterances", f"{UTTERANCES[split]}", "the file is truncated or another one"
        )
    return Utterances([series for series, _ in parsed], np.array([label for _, label in parsed], dtype=np.int64))


def _parse(line: str, path: Path, number: int) -> tuple[NDArray[np.float64], int]:
    """One utterance: twelve comma-separated series and a label, joined by colons."""
    where = f"{path}, utterance {number}"
    *channels, label = line.split(":")
    try:
        values = [[float(value) for value in channel.split(",")] for channel in channels]
        speaker = int(label)
        if not np.isfinite(sum(map(sum, values))):
            raise ValueError("NaN or an infinite one")
    except ValueError as problem:
        raise DataError(
            where, f"a value that is no number ({problem})", "12 series and a label", "pip install -U sktime"
        ) from problem
    lengths = {len(channel) for channel in values}
    if (
        len(values) != CHANNELS
        or len(lengths) != 1
        or not 1 <= max(lengths) <= MAX_FRAMES
        or not 1 <= speaker <= CLASSES
    ):
        raise DataError(
            where,
            f"{len(values)} series of lengths {sorted(lengths)}, label {speaker}",
            f"{CHANNELS} series of one length up to {MAX_FRAMES}, label 1..{CLASSES}",
            "the file is damaged",
        )
    return np.array(values, dtype=np.float64).T, speaker - 1
