"""The open questions on delays, each as a small comparison that runs on a laptop; larger tasks take the same words.

Reference: Queant, Cottureau, Masquelier, "Open questions on delay optimization in Spiking Neural Networks" (abstract).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import delaykit as dk
from delaykit_lab.comparison.config import Comparison
from delaykit_lab.words import nearest

FASTER = (0.01, 0.03)  # networks without recurrent connections bear larger rates than the others


@dataclasses.dataclass(frozen=True)
class Question:
    """One question with the comparison that is put to it.

    Args:
        text: the question.
        comparison: what is compared.
        minutes: of one CPU core, about; scaled from the recorded runs in ``results/questions``.
    """

    text: str
    comparison: Comparison
    minutes: int


def _asked(text: str, minutes: int, task: str, methods: str, **options: Any) -> Question:
    return Question(text, Comparison(task, tuple(methods.split()), **options), minutes)


def questions() -> dict[str, Question]:
    """Return the six questions by name.

    Example:
        >>> sorted(questions())
        ['Q1', 'Q2', 'Q3', 'Q4', 'Q5', 'Q6']
    """
    factorial = "none frozen-delrec delrec frozen-dcls dcls frozen both frozen-delrec+dcls delrec+frozen-dcls"
    bits = " ".join(f"free:synaptic,max_delay={2**b - 1},rounding=straight-through" for b in (1, 2, 3, 4))
    return {
        "Q1": _asked(
            "What can be modelled with delays that could not be modelled before?", 5, "interval",
            "none wider adaptive-neurons delrec dcls both", model="rsnn:16", max_delay=24,
        ),
        "Q2": _asked(
            "Which tasks need that delays are learned, not only that there are some?", 6, "sound-localisation",
            "none wider frozen-dcls dcls", model="snn:12", max_delay=30, seeds=8, rates=FASTER,
        ),
        "Q3": _asked(
            "How do recurrent and forward delays interact when both are learned?", 9, "moving-wave", factorial,
            model="rsnn:16", max_delay=16, seeds=5,
        ),
        "Q4": _asked(
            "Is learning delays the best trade, or are fixed delays, more neurons or richer ones?", 4,
            "japanese-vowels", "none wider frozen both hetsyn adaptive-neurons heterogeneous-taus", model="rsnn:32",
        ),
        "Q5": _asked(
            "How sparse can a network be that has delays?", 7, "moving-wave",
            "none wider+sparsify:0.8 both both+sparsify:0.5 both+sparsify:0.8 both+sparsify:0.9", model="rsnn:32",
            max_delay=16, equal="nothing", seeds=5,
        ),
        "Q6": _asked(
            "What do whole delays of few bits cost, at equal synaptic operations?", 4, "moving-wave",
            f"none wider dcls {bits}", model="snn:24", max_delay=16, equal="synaptic-operations",
            rates=FASTER,
        ),
    }  # fmt: skip


def question(name: str) -> Question:
    """Return one question.

    Raises:
        UnknownNameError: there is no such one.
    """
    known = questions()
    if name.upper() not in known:
        found = f"no question {name!r}{nearest(name.upper(), known)}"
        raise dk.UnknownNameError("question", found, f"one of {', '.join(known)}", "list them: `delaykit question`")
    return known[name.upper()]
