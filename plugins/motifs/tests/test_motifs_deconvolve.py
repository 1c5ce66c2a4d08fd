"""A subtractive membrane still holds what came before: deconvolved, the rules take it off."""

from __future__ import annotations

import pytest
import torch

from delaykit_motifs import MotifDynamics, hebbian, ridge

BETA = 0.6


def spikes() -> torch.Tensor:
    """Neuron 0 fires at step 3, neuron 1 two steps later."""
    patterns = torch.zeros(9, 1, 2, dtype=torch.bool)
    patterns[3, 0, 0] = patterns[5, 0, 1] = True
    return patterns


@pytest.mark.parametrize("reset", ["hard", "subtractive"])
@pytest.mark.parametrize("deconvolve", [None, False, True])
def test_the_step_after_a_spike_is_asked_to_undo_what_is_held(reset, deconvolve):
    taps = hebbian(spikes(), 3, MotifDynamics(beta=BETA, reset=reset), deconvolve=deconvolve)
    off = deconvolve if deconvolve is not None else reset == "subtractive"
    held = -BETA / 2 if off else 0.0  # the context of step 6 has two spikes, one of each neuron
    torch.testing.assert_close(taps[1, 0], torch.tensor([0.0, 1.0, held]))
    torch.testing.assert_close(taps[1, 1], torch.tensor([held, 0.0, 0.0]))


@pytest.mark.parametrize("deconvolve", [False, True])
def test_least_squares_meet_the_currents_wanted(deconvolve):
    taps = ridge(spikes(), 3, MotifDynamics(beta=BETA), penalty=1e-9, deconvolve=deconvolve, steps=100, tolerance=1e-7)
    found = [float(taps[1, 0, 1]), float(taps[1, 0, 2] + taps[1, 1, 0])]  # steps 5 and 6, from their contexts
    assert found == pytest.approx([1.0, -BETA if deconvolve else 0.0], abs=1e-4)
