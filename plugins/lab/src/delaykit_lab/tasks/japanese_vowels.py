"""Who speaks? Nine speakers, one vowel pair, twelve cepstral coefficients as ON and OFF spikes.

Each utterance of up to 29 frames is stretched to two steps a frame by linear interpolation (58 steps) and
delta-modulated in steps of ``threshold`` training-set standard deviations of the coefficient, to 12 ON and 12 OFF
channels. Nothing of the test set enters the encoding.

Where the tracker starts decides what is asked. From the utterance's own first frame (``start="first"``, the default),
spikes tell changes only, and *when* they come matters. From the training-set mean (``start="mean"``) the first spikes
spell out the level of each coefficient: then a logistic regression on spike counts alone names 96.5 % of the test
speakers, and there is nothing left for timing to add.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from delaykit import ConfigError
from delaykit_lab.data.delta import delta_modulate, stretch
from delaykit_lab.data.japanese_vowels import CHANNELS, CLASSES, MAX_FRAMES, Utterances, read_utterances
from delaykit_lab.task import Frames, Splits, Task, hold_out

STEPS_A_FRAME = 2
FRAME_MS = 6.4  # shift of the analysis window in the recordings' description
STEPS = STEPS_A_FRAME * MAX_FRAMES


@dataclasses.dataclass(frozen=True)
class JapaneseVowels(Task):
    """Speaker identification on the recordings that sktime's wheel carries.

    Args:
        start: ``"first"``: the tracker starts at the first frame of each utterance; ``"mean"``: at the training mean.
        threshold: step of the delta modulator, in standard deviations of each coefficient over the training set, > 0.
        validation: share of the 270 training utterances held out, in (0, 1).
        folder: where the two ``.ts`` files lie; None: inside the installed sktime.

    Example:
        >>> splits = JapaneseVowels().splits(seed=0)
        >>> len(splits.train), len(splits.validation), len(splits.test)
        (216, 54, 370)
    """

    name: ClassVar[str] = "japanese-vowels"
    classes: ClassVar[int] = CLASSES  # type: ignore[misc]
    channels: ClassVar[int] = 2 * CHANNELS  # type: ignore[misc]

    start: str = "first"
    threshold: float = 0.3
    validation: float = 0.2
    folder: str | Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start not in ("first", "mean"):
            raise ConfigError("JapaneseVowels.start", repr(self.start), "'first' or 'mean'", "name one of the two")
        if not self.threshold > 0:
            found, expected = f"{self.threshold}", "a positive number of standard deviations"
            raise ConfigError("JapaneseVowels.threshold", found, expected, "correct threshold")

    def title(self) -> str:
        """One line for tables and pictures."""
        return "JapaneseVowels: 9 speakers, recorded speech, 24 ON/OFF channels x 58 steps of 3.2 ms"

    def step_ms(self) -> float:
        """Length of a time step in ms."""
        return FRAME_MS / STEPS_A_FRAME

    def splits(self, seed: int) -> Splits:
        """Read and encode; 6 of the 30 training utterances of each speaker are held out for validation."""
        train, test = read_utterances("train", self.folder), read_utterances("test", self.folder)
        frames = np.concatenate(train.series)
        threshold, mean = self.threshold * frames.std(axis=0), frames.mean(axis=0)
        learnable, judged = (self._encode(utterances, threshold, mean) for utterances in (train, test))
        kept, held = hold_out(learnable.labels, self.validation, torch.Generator().manual_seed(seed))
        return Splits(learnable.subset(kept), learnable.subset(held), judged)

    def _encode(self, utterances: Utterances, threshold: np.ndarray, mean: np.ndarray) -> Frames:
        series = [stretch(one, STEPS_A_FRAME) for one in utterances.series]
        if self.start == "first":
            series = [one - one[0] for one in series]
        start = mean if self.start == "mean" else np.zeros_like(mean)
        spikes = delta_modulate(series, threshold, start, STEPS)
        return Frames(torch.from_numpy(spikes), torch.from_numpy(utterances.labels))
