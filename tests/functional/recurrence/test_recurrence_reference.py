"""The reference backend of the recurrence: another function than the fast ones, and equal to the written-out loop."""

from __future__ import annotations

import pytest
import torch

from delaykit.arrivals import Linear, Triangle
from delaykit.errors import ShapeError
from delaykit.functional.dispatch import backend, implementation_of
from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.recurrence import RolloutState, rollout
from delaykit.functional.recurrence.connection.base import Fading
from tests.functional.recurrence.cases import GRANULARITIES, RESETS, Case, leaf, naive, smooth, spike


def referee(*arguments):
    with backend("reference"):
        return rollout(*arguments)


@pytest.mark.parametrize("name", ["torch", "cpu"])
def test_judge_and_backend_are_never_the_same_function(name):
    pytest.importorskip("numba", reason="the Numba kernels need numba")
    cpu = torch.device("cpu")
    with backend("reference"):
        judge = implementation_of("recurrence", cpu)
    with backend(name):
        judged = implementation_of("recurrence", cpu)
    assert judge is not judged and judge.__module__.endswith("reference")
    assert judged.__module__.endswith({"torch": "torch", "cpu": "numba"}[name])


@pytest.mark.parametrize("reset", [RESETS[2], RESETS[8]], ids=str)
@pytest.mark.parametrize("kernel", [Linear(), Triangle(4.3)], ids=str)
@pytest.mark.parametrize("granularity", [*GRANULARITIES, None])
def test_it_equals_the_written_out_loop(granularity, kernel, reset):
    case = Case(3, GRANULARITIES.get(granularity), kernel, state=True, **dict(reset))
    if granularity is not None:
        case.leaves.pop("start_spikes", None)
    for got, want in zip(case.run(referee), case.run(naive), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


def test_what_lingers_equals_the_fast_backends():
    g = torch.Generator().manual_seed(4)
    drive, decay, weight, beyond = (
        leaf(torch.rand(*size, generator=g, dtype=torch.float64)) for size in ((9, 2, 3), (3, 3), (3, 3), (3, 3))
    )
    neuron = LIFDynamics(decay=0.8, synapse_decay=0.4, surrogate=smooth)
    results = []
    for name in ("reference", "torch", None):
        if name is None:
            _, membrane, last = rollout(drive, weight, None, Fading(decay, beyond), neuron)
        else:
            with backend(name):
                _, membrane, last = rollout(drive, weight, None, Fading(decay, beyond), neuron)
        grads = torch.autograd.grad((membrane * drive.detach()).sum(), [drive, decay, weight, beyond])
        results.append([membrane, last.synapse, *grads])
    assert results[0][3].abs().max() > 1e-3
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-10, atol=1e-10)


def test_it_goes_on_from_a_state_and_refuses_what_the_others_refuse():
    drive, weight = torch.rand(6, 2, 3, dtype=torch.float64), torch.rand(3, 3, dtype=torch.float64)
    neuron = LIFDynamics(decay=0.8, synapse_decay=0.3, surrogate=spike, synapse_state_decayed=True)
    whole = referee(drive, weight, None, None, neuron)
    head = referee(drive[:2], weight, None, None, neuron)
    tail = referee(drive[2:], weight, None, None, neuron, head[2])
    torch.testing.assert_close(torch.cat([head[1], tail[1]]), whole[1])
    torch.testing.assert_close(tail[2], whole[2])
    with pytest.raises(ShapeError, match="rollout"):
        referee(drive, weight, None, None, neuron, RolloutState(membrane=torch.zeros(5, 3)))
