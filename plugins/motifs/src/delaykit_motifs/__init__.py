"""Multi-delay weights: a connection with a weight for each synapse and each delay, and a memory made of them.

>>> from delaykit_motifs import Motif
>>> Motif(depth=41).depth
41

Every public name is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from delaykit_motifs.config import Motif as Motif
    from delaykit_motifs.convert import from_delay as from_delay
    from delaykit_motifs.convert import strongest_taps as strongest_taps
    from delaykit_motifs.convert import to_delays as to_delays
    from delaykit_motifs.convert import to_free_delay as to_free_delay
    from delaykit_motifs.delay import MotifDelay as MotifDelay
    from delaykit_motifs.dynamics import Dynamics as Dynamics
    from delaykit_motifs.experiments import Point as Point
    from delaykit_motifs.experiments import Setting as Setting
    from delaykit_motifs.experiments import robustness as robustness
    from delaykit_motifs.experiments import sweep as sweep
    from delaykit_motifs.hebb import cross_correlogram as cross_correlogram
    from delaykit_motifs.hebb import hebbian as hebbian
    from delaykit_motifs.hebb import ridge as ridge
    from delaykit_motifs.memory import MotifMemory as MotifMemory
    from delaykit_motifs.metrics import f1 as f1
    from delaykit_motifs.metrics import f1_over_time as f1_over_time
    from delaykit_motifs.metrics import f1_per_pattern as f1_per_pattern
    from delaykit_motifs.network import Run as Run
    from delaykit_motifs.network import free_run as free_run
    from delaykit_motifs.noise import flip_cue as flip_cue
    from delaykit_motifs.noise import silence as silence
    from delaykit_motifs.noise import truncate_cue as truncate_cue
    from delaykit_motifs.operators import tapped_correlation as tapped_correlation
    from delaykit_motifs.operators import tapped_linear as tapped_linear
    from delaykit_motifs.patterns import bernoulli_patterns as bernoulli_patterns
    from delaykit_motifs.patterns import evidence_of as evidence_of
    from delaykit_motifs.patterns import evidence_patterns as evidence_patterns
    from delaykit_motifs.pictures import plot_f1_over_time as plot_f1_over_time
    from delaykit_motifs.pictures import plot_motif as plot_motif
    from delaykit_motifs.pictures import plot_recall as plot_recall
    from delaykit_motifs.pictures import plot_sweep as plot_sweep
    from delaykit_motifs.training import Training as Training
    from delaykit_motifs.training import free_running_spikes as free_running_spikes
    from delaykit_motifs.training import hinge_loss as hinge_loss
    from delaykit_motifs.training import recall_score as recall_score
    from delaykit_motifs.training import train_free_running as train_free_running
    from delaykit_motifs.training import train_teacher_forced as train_teacher_forced

__version__ = "0.1.0"

_NAMES_OF = {
    "config": "Motif",
    "convert": "from_delay strongest_taps to_delays to_free_delay",
    "delay": "MotifDelay",
    "dynamics": "Dynamics",
    "network": "Run free_run",
    "hebb": "cross_correlogram hebbian ridge",
    "memory": "MotifMemory",
    "metrics": "f1 f1_over_time f1_per_pattern",
    "noise": "flip_cue silence truncate_cue",
    "operators": "tapped_correlation tapped_linear",
    "patterns": "bernoulli_patterns evidence_of evidence_patterns",
    "pictures": "plot_f1_over_time plot_motif plot_recall plot_sweep",
    "experiments": "Point Setting robustness sweep",
    "training": "Training free_running_spikes hinge_loss recall_score train_free_running train_teacher_forced",
}
_HOME = {name: module for module, names in _NAMES_OF.items() for name in names.split()}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
