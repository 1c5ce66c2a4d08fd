"""Wrong calls of the motifs plugin: told in full, none raw, none silent."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.testing.faults.second_derivatives import check_second_derivatives
from delaykit.testing.messages import check_told
from delaykit_motifs import (
    Motif,
    MotifMemory,
    bernoulli_patterns,
    cross_correlogram,
    f1,
    flip_cue,
    hebbian,
    silence,
    strongest_taps,
    tapped_correlation,
    tapped_linear,
    to_delays,
    truncate_cue,
)
from delaykit_motifs.membrane import leaky_membrane

NAN, SPIKES, TAPS = float("nan"), torch.ones(5, 2, 3), torch.rand(4, 3, 2)
FIELDS = {"depth": (0, -1, 2.5, "4", None, True), "scale": ("1", -1.0, NAN), "learn": (1, "yes"), "deph": (3,)}
CALLS = {f"Motif {k}={v!r}": lambda k=k, v=v: Motif(**({"depth": 3} | {k: v})) for k, vs in FIELDS.items() for v in vs}


def steps(x):
    return lambda: dk.wrap_(nn.Sequential(nn.Linear(3, 2)), {"0": dk.At(Motif(3), reset="manual")})(x)


WRONG = {
    "list": lambda: [[1.0]],
    "integers": lambda: SPIKES.long(),
    "meta": lambda: SPIKES.to("meta"),
    "nested": lambda: torch.nested.nested_tensor([SPIKES[0], SPIKES[1]]),
    "sparse": lambda: SPIKES.to_sparse(),
    "width": lambda: torch.ones(5, 2, 4),
}
CALLS |= {f"tapped_linear {name}": lambda x=x: tapped_linear(x(), TAPS) for name, x in WRONG.items()}
CALLS |= {f"step {name}": lambda x=x: steps(x())() for name, x in WRONG.items()}
CALLS |= {
    "Motif without a name": lambda: Motif(4, 0.1),
    "tapped_linear taps": lambda: tapped_linear(SPIKES, TAPS[0]),
    "tapped_linear bias": lambda: tapped_linear(SPIKES, TAPS, torch.ones(3)),
    "tapped_correlation depth": lambda: tapped_correlation(SPIKES, SPIKES, 0),
    "tapped_correlation time": lambda: tapped_correlation(SPIKES, SPIKES[:3], 2),
    "strongest_taps": lambda: strongest_taps(TAPS, -1),
    "to_delays": lambda: to_delays(TAPS[0]),
    "bernoulli_patterns rate": lambda: bernoulli_patterns(3, 10, 5, 1.5),
    "cross_correlogram": lambda: cross_correlogram(torch.ones(3), 2),
    "hebbian depth": lambda: hebbian(torch.ones(2, 10, 3), 0),
    "f1": lambda: f1(torch.ones(3, 2), torch.ones(4, 2)),
    "flip_cue": lambda: flip_cue(torch.ones(4, 3), 1.5),
    "truncate_cue": lambda: truncate_cue(torch.ones(4, 3), -0.5),
    "silence": lambda: silence(10, NAN),
    "MotifMemory.load": lambda: MotifMemory.load("no/such/memory"),
}


@pytest.mark.parametrize("case", CALLS)
def test_a_wrong_call_is_told_in_full(case):
    check_told(CALLS[case])


@pytest.mark.parametrize("wanted", ["spikes", "taps"])
def test_second_derivatives_are_told_in_full(wanted):
    given = {"spikes": SPIKES.clone().requires_grad_(), "taps": TAPS.clone().requires_grad_()}
    loss = tapped_linear(given["spikes"], given["taps"]).square().sum()
    first = torch.autograd.grad(loss, given[wanted], create_graph=True)[0]
    check_told(lambda: first.square().sum().backward())


def test_second_derivatives_are_refused_on_every_way():
    spikes, taps = SPIKES.double().requires_grad_(), TAPS.double().requires_grad_()
    check_second_derivatives(lambda: tapped_linear(spikes, taps), [spikes, taps])
    keep = torch.full((5, 2, 3), 0.5).double()
    check_second_derivatives(lambda: leaky_membrane(spikes, keep), [spikes])
