"""The whole rollout of sparse recurrent synapses equals the neuron's own steps, or leaves the work to others."""

from __future__ import annotations

import pytest
import torch

import delaykit as dk
from delaykit.functional.dynamics import LIFDynamics
from delaykit_sparsify import compact_
from delaykit_sparsify.rollout import rollout
from delaykit_sparsify.sparse import Ring, arrivals_of_response

pytest.importorskip("numba", reason="needs Numba, the extra `fast`")
TOLERANCE = {"rtol": 1e-12, "atol": 1e-12}
STEPS, BATCH, NEURONS, DEPTH = 17, 5, 8, 6


def heaviside(x):
    return (x > 0).to(x.dtype)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def synapses(depth=DEPTH):
    response = random(NEURONS, NEURONS, depth, seed=1)
    return arrivals_of_response(response * (random(NEURONS, NEURONS, depth, seed=2) > 1.0))


def drive():
    return random(STEPS, BATCH, NEURONS, seed=3).abs()


def stepped(*given):
    """Run the judge: the neuron's own steps behind every arrival."""
    with dk.backend("reference"):
        return rollout(*given)


NEURON_KINDS = {
    "subtract": {},
    "zero": {"reset": "zero", "reset_value": 0.1},
    "zero, spares its input": {"reset": "zero", "reset_spares_input": True, "reset_value": 0.2},
    "none": {"reset": "none"},
    "same step": {"reset_when": "same"},
    "same step, zero": {"reset_when": "same", "reset": "zero", "reset_value": 0.1},
    "synaptic current": {"synapse_decay": 0.6, "gain": 0.5, "offset": 0.05},
    "rests above threshold": {"rest": 1.3},
    "numbers for each neuron": {
        "decay": torch.linspace(0.2, 0.9, NEURONS),
        "threshold": torch.linspace(0.8, 2, NEURONS),
    },
}


@pytest.mark.parametrize("options", NEURON_KINDS.values(), ids=NEURON_KINDS)
@pytest.mark.parametrize("extras", [False, True], ids=["plain", "bias and mask"])
@pytest.mark.parametrize("depth", [1, 2, DEPTH])
@pytest.mark.parametrize("known", [False, True], ids=["checked", "known to fire above threshold"])
def test_every_neuron_equals_its_own_steps(options, extras, depth, known):
    neuron = LIFDynamics(**{"decay": 0.7, "surrogate": heaviside, "heaviside": known} | options)
    bias, mask = (random(NEURONS, seed=4), random(BATCH, NEURONS, seed=5)) if extras else (None, None)
    arrivals = synapses(depth)
    found = rollout(arrivals, drive(), bias, mask, neuron)
    wanted = stepped(arrivals, drive(), bias, mask, neuron)
    assert found is not None and 0.02 < float(wanted[0].mean()) < 0.98
    for now, then in zip(found, wanted, strict=True):
        torch.testing.assert_close(now, then, **TOLERANCE)


@pytest.mark.parametrize("known", [False, True])
def test_threads_change_no_bit(known):
    neuron = LIFDynamics(decay=0.7, surrogate=heaviside, heaviside=known)
    before, out = torch.get_num_threads(), []
    currents = drive().repeat(3, 80, 1)
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            out.append(rollout(synapses(), currents, None, None, neuron))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(*pair) for pair in zip(*out, strict=True))


@pytest.mark.parametrize("surrogate", [lambda x: heaviside(x + 0.2), lambda x: 2 * heaviside(x), torch.sigmoid])
def test_a_neuron_that_fires_elsewhere_or_in_grades_is_noticed(surrogate):
    assert rollout(synapses(), drive(), None, None, LIFDynamics(decay=0.7, surrogate=surrogate)) is None


def test_what_is_left_to_the_steps():
    neuron, arrivals = LIFDynamics(decay=0.7, surrogate=heaviside), synapses()
    learned = LIFDynamics(decay=torch.tensor(0.7, requires_grad=True), surrogate=heaviside)
    assert rollout(arrivals, drive().requires_grad_(), None, None, neuron) is None
    assert rollout(arrivals, drive(), None, None, learned) is None
    assert rollout(arrivals, drive().float(), None, None, neuron) is None
    assert (
        rollout(arrivals, drive(), None, None, LIFDynamics(decay=0.7, surrogate=heaviside, reset_when="both")) is None
    )
    with dk.backend("torch"):
        assert rollout(arrivals, drive(), None, None, neuron) is None
    with torch.no_grad():
        assert rollout(arrivals, drive(), None, None, learned) is not None


@pytest.mark.parametrize("threshold", [0.0, -0.3])
def test_dk_rollout_stays_right_whatever_the_surrogate(threshold):
    snn = pytest.importorskip("snntorch", reason="needs snnTorch, the extra `snntorch`")
    torch.manual_seed(0)
    neuron = snn.RLeaky(beta=0.8, linear_features=12, spike_grad=lambda x: (x > threshold).to(x.dtype))
    net = torch.nn.Sequential(neuron).double()
    dk.wrap_(net, {"0.recurrent": dk.At(dk.FreeDelay("synaptic", max_delay=6), reset="follow")})
    with torch.no_grad():
        net[0].recurrent.weight.mul_(random(12, 12, seed=7) > 1.0)
        currents = random(20, 3, 12, seed=8).abs()
        wanted = dk.rollout(net[0], currents)
        assert not compact_(net).connections[0].reason
        for now, then in zip(dk.rollout(net[0], currents), wanted, strict=True):
            torch.testing.assert_close(now, then, **TOLERANCE)
    assert 0.02 < float(wanted[0].mean()) < 0.98


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
def test_a_batch_of_no_rows_has_no_spikes(backend: str) -> None:
    recurrent, ring = synapses(), Ring(synapses())
    dynamics = LIFDynamics(decay=0.8, threshold=1.0, surrogate=heaviside, heaviside=True)
    with dk.backend(backend):
        assert ring.push(random(0, NEURONS)).shape == (0, NEURONS)
        whole = rollout(recurrent, random(STEPS, 0, NEURONS), random(NEURONS), None, dynamics)
    assert backend == "torch" or [x.shape for x in whole] == [(STEPS, 0, NEURONS)] * 2
