"""The backends against each other and the judge, every option, float64 to 1e-12: values and all gradients."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from delaykit.functional.dispatch import backend
from delaykit.plugins import registry
from delaykit.testing.faults.second_derivatives import check_second_derivatives
from delaykit_spatial.exact import (
    ExactAdEx,
    ExactLIF,
    SuperSpike,
    exact_arrivals,
    exact_rollout,
    first_spike_times,
    numba,
)

STEPS, BATCH, PRE, POST = 40, 3, 6, 5
NEURONS = {
    "lif": ExactLIF(tau_mem=10.0, tau_syn=2.0, dt=0.5),
    "equal taus": ExactLIF(tau_mem=4.0, tau_syn=4.0, threshold=0.8),
    "adex": ExactAdEx(tau_mem=10.0, tau_syn=2.0, tau_adapt=20.0, coupling=0.1, jump=0.05, dt=0.5),
}
OPTIONS = [
    dict(),
    dict(surrogate=SuperSpike()),
    dict(once=True, surrogate=SuperSpike(2.0)),
    dict(rescale_every=7),
    dict(min_slope=0.2),
    dict(self_connections=False),
    dict(estimator="none"),
]
GRANULARITIES = {"layer": (1, 1), "axonal": (1, PRE), "dendritic": (POST, 1), "synaptic": (POST, PRE)}


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def network(neuron, delay_shape, recurrent, options, dtype=torch.float64, steps=STEPS):
    """Two layers with every way out of the operators: membrane, spikes, clock; returns outputs and gradients."""
    spikes = (draw(steps, BATCH, PRE, dtype=dtype) < 0.12).to(dtype) * (0.5 + draw(steps, BATCH, PRE, dtype=dtype))
    weight = (0.1 + 0.35 * draw(POST, PRE, seed=1, dtype=dtype)).requires_grad_()
    delay = (9 * draw(*delay_shape, seed=2, dtype=dtype)).requires_grad_()
    inner = (0.4 * draw(POST, POST, seed=3, dtype=dtype) - 0.2).requires_grad_()
    lag = (12 * draw(POST if delay_shape[0] > 1 else 1, POST, seed=4, dtype=dtype)).requires_grad_()
    clock = torch.zeros_like(spikes, requires_grad=True)
    timing = {name: options[name] for name in options if name == "estimator"}
    jumps = exact_arrivals(spikes, clock, weight, delay, neuron.tau_syn, neuron.dt, **timing)
    run = exact_rollout(*jumps, neuron, inner if recurrent else None, lag if recurrent else None, **options)
    out_weight = (0.5 * draw(2, POST, seed=5, dtype=dtype)).requires_grad_()
    out_delay = (3 * draw(2, POST, seed=6, dtype=dtype)).requires_grad_()
    out = exact_rollout(
        *exact_arrivals(run.spikes, run.clock, out_weight, out_delay, neuron.tau_syn, neuron.dt), neuron
    )
    loss = (out.membrane * draw(*out.membrane.shape, seed=7, dtype=dtype)).sum()
    loss = loss + (run.membrane * draw(*run.membrane.shape, seed=8, dtype=dtype)).sum()
    loss = loss + (first_spike_times(run.spikes, run.clock, float(steps)) ** 2).sum() / steps
    if run.spikes.requires_grad:
        loss = loss + (run.spikes * draw(*run.spikes.shape, seed=9, dtype=dtype)).sum()
    leaves = [weight, delay, clock, out_weight, out_delay, *([inner, lag] if recurrent else [])]
    grads = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [run.spikes, run.membrane, out.spikes, out.membrane], grads


def test_the_net_of_these_tests_fires_and_is_silent() -> None:
    for neuron, recurrent in itertools.product(NEURONS.values(), (False, True)):
        rate = network(neuron, (POST, PRE), recurrent, {})[0][0].mean()
        assert 0.02 < rate < 0.3, rate


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("name", NEURONS)
def test_compiled_equals_plain_torch(name: str, recurrent: bool, options: dict) -> None:
    fast = network(NEURONS[name], (POST, PRE), recurrent, options)
    with backend("torch"):
        slow = network(NEURONS[name], (POST, PRE), recurrent, options)
    for mine, judge in zip(fast[0], slow[0], strict=True):
        torch.testing.assert_close(mine, judge, rtol=1e-12, atol=1e-12)
    for mine, judge in zip(fast[1], slow[1], strict=True):
        if judge is None:
            assert mine is None and options.get("estimator") == "none"
            continue
        torch.testing.assert_close(mine, judge, rtol=1e-12, atol=1e-12 * (1 + judge.abs().max().item()))
        assert judge.abs().max() > 0


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", NEURONS)
def test_plain_torch_equals_the_judge(name: str, options: dict) -> None:
    results = []
    for one in ("torch", "reference"):
        with backend(one):
            results.append(network(NEURONS[name], (POST, PRE), True, options, steps=20))
    (values, grads), (judged, judged_grads) = results
    assert values[0].sum() > 0
    for mine, judge in zip(values, judged, strict=True):
        torch.testing.assert_close(mine, judge, rtol=1e-12, atol=1e-12)
    for mine, judge in zip(grads, judged_grads, strict=True):
        if judge is None or mine is None:
            assert mine is judge is None and options.get("estimator") == "none"
            continue
        torch.testing.assert_close(mine, judge, rtol=1e-12, atol=1e-12 * (1 + judge.abs().max().item()))


def test_judge_and_backends_are_different_functions() -> None:
    for name in ("spatial_exact_arrivals", "spatial_exact_rollout"):
        found = [registry.implementation(name, one) for one in ("reference", "torch", "cpu")]
        assert None not in found and len(set(found)) == 3


@pytest.mark.parametrize("most", [0.0, 1e9], ids=["by a buffer", "one by one"])
@pytest.mark.parametrize("recurrent", [False, True])
def test_both_ways_to_deliver(most: float, recurrent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba, "SPARSE", most)
    fast = network(NEURONS["lif"], (POST, PRE), recurrent, {})
    with backend("torch"):
        slow = network(NEURONS["lif"], (POST, PRE), recurrent, {})
    for mine, judge in zip((*fast[0], *fast[1]), (*slow[0], *slow[1]), strict=True):
        torch.testing.assert_close(mine, judge, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_every_granularity(granularity: str) -> None:
    fast = network(NEURONS["lif"], GRANULARITIES[granularity], True, {})
    with backend("torch"):
        slow = network(NEURONS["lif"], GRANULARITIES[granularity], True, {})
    for mine, judge in zip((*fast[0], *fast[1]), (*slow[0], *slow[1]), strict=True):
        torch.testing.assert_close(mine, judge, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("name", ["reference", "torch", "cpu"])
def test_no_rows_or_no_steps_have_no_spikes(name: str) -> None:
    neuron, weight, delay = NEURONS["lif"], draw(POST, PRE), 9 * draw(POST, PRE)
    with backend(name):
        for steps, rows in ((STEPS, 0), (0, BATCH)):
            jumps = exact_arrivals(draw(steps, rows, PRE), None, weight, delay, neuron.tau_syn, neuron.dt)
            assert [x.shape for x in jumps] == [(steps, rows, POST)] * 2
        assert exact_rollout(*jumps_of_no_rows(neuron, weight, delay), neuron).spikes.shape == (STEPS, 0, POST)


def jumps_of_no_rows(neuron: ExactLIF, weight: Tensor, delay: Tensor) -> tuple[Tensor, Tensor]:
    return exact_arrivals(draw(STEPS, 0, PRE), None, weight, delay, neuron.tau_syn, neuron.dt)


@pytest.mark.parametrize("name", ["numba", "torch"])
def test_second_derivatives_are_refused_on_every_way(name):
    neuron = next(iter(NEURONS.values()))
    spikes = (draw(12, BATCH, PRE) < 0.3).double()
    weight, delay = (
        (0.1 + 0.35 * draw(POST, PRE, seed=1)).requires_grad_(),
        (4 * draw(POST, PRE, seed=2)).requires_grad_(),
    )
    inner, lag = (0.4 * draw(POST, POST, seed=3)).requires_grad_(), (4 * draw(POST, POST, seed=4)).requires_grad_()

    def run():
        jumps = exact_arrivals(spikes, torch.zeros_like(spikes), weight, delay, neuron.tau_syn, neuron.dt)
        return exact_rollout(*jumps, neuron, inner, lag).membrane

    with backend({"numba": "cpu"}.get(name, name)):
        check_second_derivatives(run, [weight, delay, inner, lag])
