"""The fused rollout against a plain autograd loop over ``LIFDynamics.step`` and a dense causal sum."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from delaykit.arrivals import Hard, Linear, Triangle
from delaykit.errors import ConfigError, HistoryError, ShapeError
from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.recurrence import RolloutState, rollout, rollout_generic
from tests.functional.recurrence.cases import (
    GRANULARITIES,
    RESETS,
    STEPS,
    Case,
    assert_equal_to_naive,
    every_backend,  # noqa: F401 - the fixture `backend`
    leaf,
    naive,
    smooth,
    sparsest,
    spike,
)


def test_the_cases_spike_and_their_gradients_are_not_zero():
    spikes, _, grads = Case(0, GRANULARITIES["axonal"], Linear(), **RESETS[3]).run(rollout)
    assert 0.05 < spikes.mean() < 0.6
    assert all(grad is not None and grad.abs().max() > 1e-3 for grad in grads.values())


@pytest.mark.parametrize("reset", RESETS, ids=lambda r: "-".join(str(v) for v in r.values()))
@pytest.mark.parametrize("synapse", [True, False])
def test_every_reset_equals_the_autograd_loop(backend, reset, synapse):
    assert_equal_to_naive(Case(1, GRANULARITIES["axonal"], Linear(), synapse=synapse, state=True, **reset))
    assert_equal_to_naive(Case(2, None, None, synapse=synapse, state=True, mask=False, **reset))


@pytest.mark.parametrize("reset", RESETS, ids=lambda r: "-".join(str(v) for v in r.values()))
def test_a_surrogate_known_to_fire_above_zero_is_asked_for_its_gradient_only(reset):
    pytest.importorskip("numba", reason="the Numba kernels need numba")
    asked = []

    def above(x):
        asked.append(x.requires_grad)
        return spike(torch.nextafter(x, torch.full_like(x, -1e9)))  # spike() fires at zero, too

    axonal = GRANULARITIES["axonal"]
    runs = [Case(5, axonal, Linear(), above, **reset | {"heaviside": h}).run(rollout) for h in (False, True)]
    for found, wanted in zip(*(torch.utils._pytree.tree_leaves(run) for run in runs), strict=True):
        assert torch.equal(found, wanted)
    asked.clear()
    case = Case(5, GRANULARITIES["axonal"], Linear(), above, **reset | {"heaviside": True})
    with torch.no_grad():
        assert 0.02 < float(rollout(*case.arguments())[0].mean()) < 0.98
    assert len(asked) <= {"same": 0, "next": 1, "both": 1 + STEPS}[reset.get("reset_when", "next")]


@pytest.mark.parametrize("kernel", [Linear(), Triangle(1.0), Triangle(4.3), Hard()], ids=str)
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_every_granularity_equals_the_dense_sum(backend, granularity, kernel):
    for seed, reset in itertools.product(range(2), (RESETS[1], RESETS[9])):
        assert_equal_to_naive(Case(seed, GRANULARITIES[granularity], kernel, **dict(reset)))


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_integer_delays_carry_the_two_sided_gradient(backend, granularity):
    case = Case(3, GRANULARITIES[granularity], Linear(), **RESETS[1])
    case.leaves["delay"] = leaf(case.leaves["delay"].round())
    assert_equal_to_naive(case)
    assert case.run(rollout)[2]["delay"].abs().max() > 1e-3


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_learned_spread_gets_its_gradient(backend, granularity):
    case = Case(4, GRANULARITIES[granularity], Linear(), **RESETS[1])
    case.leaves["spread"] = leaf(torch.full(GRANULARITIES[granularity], 2.7, dtype=torch.float64))
    case.kernel = Triangle(case.leaves["spread"])
    assert_equal_to_naive(case)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**20), st.sampled_from(sorted(GRANULARITIES)), st.floats(0, 6), st.integers(0, len(RESETS) - 1))
def test_random_layers_equal_the_autograd_loop(seed, granularity, spread, reset):
    assert_equal_to_naive(Case(seed, GRANULARITIES[granularity], Triangle(spread), **dict(RESETS[reset])), 1e-9)


@pytest.mark.parametrize("reset", [RESETS[0], RESETS[7], RESETS[9]], ids=str)
@pytest.mark.parametrize("granularity", ["axonal", "dendritic", "synaptic"])
def test_gradcheck_with_smooth_spikes(backend, granularity, reset):
    case = Case(5, GRANULARITIES[granularity], Linear(), surrogate=smooth, state=True, **dict(reset))
    names = list(case.leaves)

    def run(*tensors):
        case.leaves = dict(zip(names, tensors, strict=True))
        spikes, membrane, last = rollout(*case.arguments())
        return spikes[-4:], membrane[-4:], last.synapse

    assert torch.autograd.gradcheck(run, tuple(case.leaves.values()), fast_mode=True)


def test_readout_without_spikes_integrates(backend):
    drive = leaf(torch.randn(7, 2, 3, dtype=torch.float64))
    dynamics = LIFDynamics(decay=0.9, synapse_decay=0.7, reset="none")
    spikes, membrane, _ = rollout(drive, None, None, None, dynamics)
    expected = naive(drive, None, None, None, dynamics)[1]
    torch.testing.assert_close(membrane, expected)
    assert not spikes.any()
    torch.testing.assert_close(torch.autograd.grad(membrane.sum(), drive), torch.autograd.grad(expected.sum(), drive))


def test_without_delays_a_sequence_continues(backend):
    case = Case(6, None, None, **RESETS[1])
    currents, weight, bias, taps, dynamics, _, mask = case.arguments()
    whole = rollout(currents, weight, bias, taps, dynamics, None, mask)
    head = rollout(currents[:5], weight, bias, taps, dynamics, None, mask)
    tail = rollout(currents[5:], weight, bias, taps, dynamics, head[2], mask)
    torch.testing.assert_close(torch.cat([head[0], tail[0]]), whole[0], rtol=0, atol=0)
    leaves = list(case.leaves.values())
    whole_grad = torch.autograd.grad((whole[1] * case.cotangents[1]).sum(), leaves, retain_graph=True)
    membrane = torch.cat([head[1], tail[1]])
    parts_grad = torch.autograd.grad((membrane * case.cotangents[1]).sum(), leaves)
    torch.testing.assert_close(parts_grad, whole_grad, rtol=1e-10, atol=1e-10)


def test_spikes_that_a_delay_does_not_remember_are_refused():
    case = Case(7, GRANULARITIES["axonal"], Linear(), **RESETS[1])
    arguments = case.arguments()
    state = rollout(*arguments)[2]
    with pytest.raises(HistoryError, match="state.spikes=None"):
        rollout(*arguments[:5], state)


def test_causality_and_batch_independence(backend):
    case = Case(8, GRANULARITIES["synaptic"], Triangle(3.0), mask=False, **RESETS[1])
    currents, *rest = case.arguments()
    spikes, membrane, _ = rollout(currents, *rest)
    late = currents.detach().clone()
    late[9:] += 3.0
    torch.testing.assert_close(rollout(late, *rest)[1][:9], membrane[:9], rtol=0, atol=0)
    torch.testing.assert_close(rollout(currents[:, 1:2], *rest)[1], membrane[:, 1:2], rtol=1e-12, atol=1e-12)


def test_repeated_and_partial_backward():
    case = Case(9, GRANULARITIES["axonal"], Linear(), **RESETS[1])
    spikes, membrane, _ = rollout(*case.arguments())
    loss = (membrane * case.cotangents[1]).sum()
    every = torch.autograd.grad(loss, list(case.leaves.values()), retain_graph=True)
    again = torch.autograd.grad(loss, list(case.leaves.values()), retain_graph=True)
    torch.testing.assert_close(again, every, rtol=0, atol=0)
    for name, grad in zip(case.leaves, every, strict=True):
        (alone,) = torch.autograd.grad(loss, case.leaves[name], retain_graph=True)
        torch.testing.assert_close(alone, grad, rtol=0, atol=0)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_only_what_requires_grad_gets_it(granularity):
    case = Case(10, GRANULARITIES[granularity], Linear(), **RESETS[1])
    full = case.run(rollout)[2]
    for name in ("weight", "delay", "threshold", "currents"):
        single = Case(10, GRANULARITIES[granularity], Linear(), **RESETS[1])
        single.leaves = {k: v if k == name else v.detach() for k, v in single.leaves.items()}
        spikes, membrane, last = rollout(*single.arguments())
        one, two, three = single.cotangents
        loss = (spikes * one).sum() + (membrane * two).sum() + ((last.membrane * 0.5 + last.synapse) * three).sum()
        (grad,) = torch.autograd.grad(loss, single.leaves[name])
        torch.testing.assert_close(grad, full[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("granularity", ["axonal", "dendritic", "synaptic"])
def test_running_sums_do_not_drift_over_2000_steps(backend, granularity):
    shape = {"axonal": (1, 4), "dendritic": (4, 1), "synaptic": (4, 4)}[granularity]
    g = torch.Generator().manual_seed(11)
    currents = torch.rand(2000, 2, 4, generator=g) * 0.8
    delays = torch.rand(shape, generator=g) * 25
    weight = torch.randn(4, 4, generator=g) * 0.3

    def membrane(dtype):
        neuron = LIFDynamics(decay=torch.tensor(0.8, dtype=dtype), surrogate=torch.sigmoid, reset="none")
        values = weight.to(dtype), None, sparsest(Triangle(10.0), delays.to(dtype)), neuron
        return rollout(currents.to(dtype), *values)[1]

    exact = membrane(torch.float64)
    error = (membrane(torch.float32).double() - exact).abs()
    assert error.max() <= 1e-5 * exact.abs().max()
    assert error[-200:].max() <= 3 * error[200:400].max()


@pytest.mark.parametrize("granularity", [*GRANULARITIES, None])
def test_generic_rollout_equals_the_fused_one(granularity):
    case = Case(12, GRANULARITIES.get(granularity), Triangle(3.0), **RESETS[1])
    currents, weight, bias, taps, dynamics, _, mask = case.arguments()
    state = dynamics.start(currents[0])

    def step(drive, last):
        nonlocal state
        spikes, state = dynamics.step(drive, state)
        return spikes

    generic = rollout_generic(step, currents, weight, bias, taps, mask)
    fused = rollout(currents, weight, bias, taps, dynamics, None, mask)[0]
    torch.testing.assert_close(generic, fused, rtol=0, atol=0)
    leaves = list(case.leaves.values())
    got = torch.autograd.grad((fused * case.cotangents[0]).sum(), leaves, retain_graph=True)
    want = torch.autograd.grad((generic * case.cotangents[0]).sum(), leaves)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


def test_kept_memory_is_a_few_sequences():
    case = [torch.randn(50, 8, 16), torch.randn(16, 16), torch.zeros(16), Linear().taps(torch.rand(1, 16) * 9)]
    kept: list[int] = []
    seen: set[int] = set()

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in seen:
            seen.add(tensor.untyped_storage().data_ptr())
            kept.append(tensor.untyped_storage().nbytes())
        return tensor

    case[0].requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        rollout(*case, LIFDynamics(decay=0.9, surrogate=spike))
    assert sum(kept) < 3.5 * case[0].nbytes  # spikes and membrane, which the caller gets anyway, and the input history


def test_half_precision_is_computed_in_float32():
    case = Case(13, GRANULARITIES["axonal"], Linear(), **RESETS[1])
    arguments = case.arguments()
    spikes, *_ = rollout(arguments[0].to(torch.bfloat16), *arguments[1:])
    assert spikes.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        inside, *_ = rollout(arguments[0].float(), *arguments[1:])
    torch.testing.assert_close(inside, rollout(arguments[0].float(), *arguments[1:])[0], rtol=0, atol=0)


def test_wrong_arguments_say_what_is_wrong():
    neuron = LIFDynamics(decay=0.9, surrogate=spike)
    x, w = torch.zeros(4, 2, 3), torch.zeros(3, 3)
    with pytest.raises(ShapeError, match=r"currents"):
        rollout(torch.zeros(4, 3), None, None, None, neuron)
    with pytest.raises(ShapeError, match=r"weight.*\(3, 4\) for currents \(.*one current for each neuron"):
        rollout(x, torch.zeros(3, 4), None, None, neuron)
    with pytest.raises(ShapeError, match="bias"):
        rollout(x, w, torch.zeros(2), None, neuron)
    with pytest.raises(ShapeError, match="recurrent_mask"):
        rollout(x, w, None, None, neuron, recurrent_mask=torch.ones(3))
    with pytest.raises(ShapeError, match="taps"):
        rollout(x, w, None, Linear().taps(torch.zeros(1, 4)), neuron)
    with pytest.raises(ShapeError, match="state"):
        rollout(x, w, None, None, neuron, RolloutState(membrane=torch.zeros(5, 3)))
    with pytest.raises(ShapeError, match="decay"):
        rollout(x, w, None, None, LIFDynamics(decay=torch.zeros(4), surrogate=spike))
    with pytest.raises(ConfigError, match="surrogate"):
        rollout(x, w, None, None, LIFDynamics(decay=0.9))
    with pytest.raises(ConfigError, match="reset"):
        LIFDynamics(decay=0.9, reset="hard")
    with pytest.raises(ConfigError, match="reset_when"):
        LIFDynamics(decay=0.9, reset_when="never")
    with pytest.raises(ConfigError, match="one step later"):
        LIFDynamics(decay=0.9, reset="zero", detach_reset=False)
    with pytest.raises(ConfigError, match="learned parameters"):
        LIFDynamics(decay=0.9, surrogate=torch.nn.PReLU())
