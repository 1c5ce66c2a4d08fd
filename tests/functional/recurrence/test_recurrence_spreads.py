"""Rollouts whose triangles have widths of their presynaptic neurons, by two cells a synapse: values and gradients."""

from __future__ import annotations

import pytest
import torch

from delaykit.arrivals import Triangle
from delaykit.functional.dispatch import backend as choose_backend
from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.recurrence import rollout
from delaykit.functional.recurrence.connection.spreads import SpreadSynaptic, packed, spread_connection
from tests.functional.judging import needs_numba
from tests.functional.recurrence.cases import leaf, naive, smooth, spike

STEPS, BATCH, NEURONS = 23, 3, 5
SPREADS = {
    "any": torch.tensor([[0.3, 1.5, 2.75, 4.1, 6.9]]),
    "whole": torch.tensor([[0.0, 1.0, 2.0, 3.0, 9.0]]),
    "one for all": torch.tensor([[2.3]]),
}


@pytest.mark.parametrize("run", ["torch", pytest.param("cpu", marks=needs_numba)])
@pytest.mark.parametrize("surrogate", [spike, smooth])
@pytest.mark.parametrize("spread", SPREADS)
def test_equals_the_equations(spread, surrogate, run):
    g = torch.Generator().manual_seed(3)
    currents, weight = (leaf(torch.randn(*s, NEURONS, generator=g).double()) for s in ((STEPS, BATCH), (NEURONS,)))
    delays = (torch.rand(NEURONS, NEURONS, generator=g) * 6).double()
    delays = leaf(delays.round() if spread == "whole" else delays)
    spreads = leaf(SPREADS[spread].double())
    neuron = LIFDynamics(decay=0.8, surrogate=surrogate, reset="subtract", reset_when="next")
    cotangents = torch.randn(2, STEPS, BATCH, NEURONS, generator=g).double()
    found = []
    with choose_backend(run):
        for function in (rollout, naive):
            kernel = Triangle(spreads)
            taps = kernel.own_tents(delays) if function is rollout else kernel.taps(delays)
            spikes, membrane, _ = function(currents, weight, None, taps, neuron)
            loss = (spikes * cotangents[0]).sum() + (membrane * cotangents[1]).sum()
            found.append((spikes, membrane, *torch.autograd.grad(loss, (currents, weight, delays, spreads))))
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-10)


@needs_numba
def test_gradients_equal_differences():
    g = torch.Generator().manual_seed(5)
    shapes = (4, 2, 3), (3, 3), (3, 3), (1, 3)  # currents, weight, delays, spreads
    leaves = [leaf(torch.rand(*shape, generator=g).double() * 3) for shape in shapes]

    def membranes(currents, weight, delays, spreads):
        neuron = LIFDynamics(decay=0.8, surrogate=smooth, reset="subtract", reset_when="next", detach_reset=False)
        return rollout(currents, weight, None, Triangle(spreads).own_tents(delays), neuron)[1]

    assert torch.autograd.gradcheck(membranes, leaves)


@needs_numba
def test_runs_by_cells_and_in_part():
    delays, spreads = leaf(torch.rand(NEURONS, NEURONS) * 6), torch.rand(1, NEURONS) * 5
    currents, weight = torch.randn(STEPS, BATCH, NEURONS), leaf(torch.randn(NEURONS, NEURONS))
    tents = Triangle(spreads).own_tents(delays)
    made = spread_connection(tents, currents)
    assert isinstance(made(weight, None, packed(tents).detach(), STEPS), SpreadSynaptic)
    assert spread_connection(tents, torch.zeros(STEPS, BATCH, 4)) is None
    neuron = LIFDynamics(decay=0.8, surrogate=spike)
    for wanted in (weight, delays):
        runs = [f(currents, weight, None, t, neuron)[1] for f, t in ((rollout, tents), (naive, tents.taps()))]
        one, other = (torch.autograd.grad(out.square().sum(), wanted)[0] for out in runs)
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        assert torch.equal(*(rollout(currents, weight, None, tents, neuron)[0] for _ in range(2)))
