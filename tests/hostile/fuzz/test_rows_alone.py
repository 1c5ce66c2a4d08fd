"""Rows of a batch selected, dropped and begun anew, weights changed: each component, in each place, in each library."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("snntorch", reason="fuzzes snntorch loops")
pytest.importorskip("norse.torch", reason="fuzzes norse loops")
from rows_alone import COMPONENTS, MODELS, WAYS, verdict  # noqa: E402


def fuzz(component, seeds):
    faults, equal = {}, 0
    for seed in seeds:
        r = random.Random(f"{component} {seed}")
        model, way, gradients = r.choice(list(MODELS)), r.choice(WAYS), r.random() < 0.3
        found = verdict(seed, model, component, way, gradients)
        equal += found == ""
        if found not in ("", "refused"):
            faults[seed] = f"{model}, {way}, gradients {gradients}: {found}"
    assert not faults, "\n".join(f"{seed}: {text}" for seed, text in faults.items())
    return equal


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_few_programs(component):
    fuzz(component, range(4))


@pytest.mark.slow
@pytest.mark.parametrize("component", COMPONENTS)
def test_many_programs(component):
    assert fuzz(component, range(6, 40)) >= 15, "a fuzzer whose programs are refused shows little"
