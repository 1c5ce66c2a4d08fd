"""What is *about* learning rather than part of a synapse: data, tasks, a small runner, the demo.

Every public name is imported on first use, so that ``delaykit --help`` loads neither torch nor h5py.

Example:
    >>> from delaykit_lab import JapaneseVowels
    >>> splits = JapaneseVowels().splits(seed=0)
    >>> tuple(splits.train.spikes.shape), len(splits.validation), len(splits.test)
    ((58, 216, 24), 54, 370)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from delaykit_lab.data.events import EventSet as EventSet
    from delaykit_lab.data.events import bin_events as bin_events
    from delaykit_lab.data.idx import read_idx as read_idx
    from delaykit_lab.data.japanese_vowels import read_utterances as read_utterances
    from delaykit_lab.data.robustness import delete_spikes as delete_spikes
    from delaykit_lab.data.robustness import warp_factors as warp_factors
    from delaykit_lab.data.robustness import warp_time as warp_time
    from delaykit_lab.data.spike_hdf5 import locate as locate
    from delaykit_lab.data.spike_hdf5 import mark_for_tonic as mark_for_tonic
    from delaykit_lab.data.spike_hdf5 import read_events as read_events
    from delaykit_lab.runner import FitConfig as FitConfig
    from delaykit_lab.runner import fit as fit
    from delaykit_lab.runner import predict as predict
    from delaykit_lab.task import Frames as Frames
    from delaykit_lab.task import Splits as Splits
    from delaykit_lab.task import Task as Task
    from delaykit_lab.tasks.japanese_vowels import JapaneseVowels as JapaneseVowels
    from delaykit_lab.tasks.match_to_sample import MatchToSample as MatchToSample
    from delaykit_lab.tasks.match_to_sample import iterations_to as iterations_to
    from delaykit_lab.tasks.mnist import MNIST as MNIST
    from delaykit_lab.tasks.mnist import Images as Images
    from delaykit_lab.tasks.pattern_generation import PatternGeneration as PatternGeneration
    from delaykit_lab.tasks.pattern_generation import distance as distance
    from delaykit_lab.tasks.spike_files import SpikeFiles as SpikeFiles
    from delaykit_lab.tasks.yin_yang import Points as Points
    from delaykit_lab.tasks.yin_yang import YinYang as YinYang
    from delaykit_lab.tasks.yin_yang import first_spike_loss as first_spike_loss
    from delaykit_lab.tasks.yin_yang import first_to_spike as first_to_spike

__version__ = "0.1.0"

_NAMES_OF = {
    "data.events": "EventSet bin_events",
    "data.idx": "read_idx",
    "data.japanese_vowels": "read_utterances",
    "data.spike_hdf5": "locate mark_for_tonic read_events",
    "data.robustness": "delete_spikes warp_factors warp_time",
    "runner": "FitConfig fit predict",
    "task": "Frames Splits Task",
    "tasks.japanese_vowels": "JapaneseVowels",
    "tasks.match_to_sample": "MatchToSample iterations_to",
    "tasks.mnist": "MNIST Images",
    "tasks.pattern_generation": "PatternGeneration distance",
    "tasks.spike_files": "SpikeFiles",
    "tasks.yin_yang": "Points YinYang first_spike_loss first_to_spike",
}
_HOME = {name: module for module, names in _NAMES_OF.items() for name in names.split()}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
