"""The continuous-time judge agrees with finite differences, and the discrete gradients agree with it."""

from __future__ import annotations

import dataclasses
import inspect
import types

import numpy as np
import pytest
import torch
from exact_continuous import LIF, AdEx, Net, finite_differences, run
from torch import Tensor

from delaykit.functional import dispatch
from delaykit.functional.dispatch import backend
from delaykit_spatial.exact import ExactAdEx, ExactLIF, exact_arrivals, exact_rollout
from delaykit_spatial.exact import torch as plain


def lif_net(until: float = 20.0) -> Net:
    rng = np.random.default_rng(5)
    weights = rng.uniform(0.12, 0.45, (3, 4)), rng.uniform(-0.15, 0.3, (3, 3))
    delays = rng.uniform(0.5, 4.0, (3, 4)), rng.uniform(0.5, 4.0, (3, 3))
    inputs = tuple((pre, float(t)) for pre in range(4) for t in np.sort(rng.uniform(0, 15, 3)))
    return Net((weights[0], delays[0], weights[1], delays[1]), inputs, until, LIF())


def adex_net(until: float = 20.0) -> Net:
    rng = np.random.default_rng(6)
    weights = rng.uniform(0.2, 0.5, (2, 2)), rng.uniform(0.05, 0.2, (2, 2))
    delays = rng.uniform(0.5, 3.0, (2, 2)), rng.uniform(0.5, 3.0, (2, 2))
    inputs = tuple((pre, float(t)) for pre in range(2) for t in np.sort(rng.uniform(0, 12, 4)))
    return Net((weights[0], delays[0], weights[1], delays[1]), inputs, until, AdEx())


def error_of_tangents(net: Net, directions: int, step: float, printed: str = "") -> float:
    """The largest relative error of spike times' and the last state's tangents along random directions."""
    rng, result, worst = np.random.default_rng(0), run(net, printed=printed), 0.0
    assert len(result.spikes) > 4
    for _ in range(directions):
        direction = rng.standard_normal(net.flat().size)
        up, down = (run(net.at(net.flat() + sign * step * direction), tangents=False) for sign in (1, -1))
        assert [n for _, n in up.spikes] == [n for _, n in down.spikes] == [n for _, n in result.spikes]
        times = np.array([[a[0] - b[0]] for a, b in zip(up.spikes, down.spikes, strict=True)])[:, 0] / (2 * step)
        state = (up.state - down.state) / (2 * step)
        for mine, found in ((result.time_tangent @ direction, times), (result.state_tangent @ direction, state)):
            worst = max(worst, np.abs(mine - found).max() / np.abs(found).max())
    return worst


def test_tangents_of_lif_are_finite_differences() -> None:
    assert error_of_tangents(lif_net(), 6, 1e-6) < 1e-6


def test_tangents_of_adex_are_finite_differences() -> None:
    assert error_of_tangents(adex_net(), 2, 1e-5) < 1e-6


@pytest.mark.parametrize("printed", ["eq 9", "eq 16", "eq 27"])
def test_a_rule_as_printed_is_not_the_derivative(printed: str) -> None:
    assert error_of_tangents(lif_net(), 2, 1e-5, printed) > 1e-2


def test_the_adaptation_as_printed_is_not_the_derivative() -> None:
    assert error_of_tangents(adex_net(), 1, 1e-5, "eq 18") > 1e-2


READOUT = np.array([1.0, -0.7, 0.4])
MARKS = [(0.1, 0.97), (0.02, 0.999)]


def drawn(seed: int) -> Net:
    """A random net whose input comes on the grid of the longest steps tested, as data do."""
    rng = np.random.default_rng(seed)
    weight, delay = rng.uniform(0.1, 0.45, (3, 4)), rng.uniform(0.5, 4.0, (3, 4))
    inner, lag = rng.uniform(-0.15, 0.3, (3, 3)), rng.uniform(0.5, 4.0, (3, 3))
    inputs = tuple((pre, round(float(t), 1)) for pre in range(4) for t in np.sort(rng.uniform(0, 15, 3)))
    return Net((weight, delay, inner, lag), inputs, 12.0)


def distances(positions: np.ndarray, inputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Delays of two-dimensional positions, inputs first: ``sqrt(.01 + distance^2)``, to the neurons and among them."""
    all_pairs = np.sqrt(0.01 + ((positions[:, None] - positions[None]) ** 2).sum(-1))
    return all_pairs[inputs:, :inputs], all_pairs[inputs:, inputs:]


def in_space(net: Net, flat: np.ndarray) -> Net:
    """Put the net's neurons at positions ``(input or neuron, 2)``."""
    feedforward, recurrent = distances(flat.reshape(-1, 2), net.parameters[0].shape[1])
    weight, _, inner, _ = net.parameters
    return dataclasses.replace(net, parameters=(weight, feedforward, inner, recurrent))


def by_places(places: np.ndarray, by_delay: np.ndarray) -> np.ndarray:
    """Carry derivatives by delays, ``(neuron, input or neuron)``, to the positions at both ends."""
    pre = places[None]
    away = places[len(places) - len(by_delay) :, None] - pre
    pull = by_delay[..., None] * away / np.sqrt(0.01 + (away**2).sum(-1, keepdims=True))
    out = -pull.sum(0)
    out[len(places) - len(by_delay) :] += pull.sum(1)
    return out


def potential(net: Net) -> float:
    return float(READOUT[: len(net.parameters[0])] @ run(net, tangents=False).state[:, 0])


def stepped(net: Net, parameters: list[Tensor], dt: float) -> tuple[Tensor, int]:
    """The same net in steps of ``dt`` with exact gradients: its loss and number of spikes."""
    weight, delay, inner, lag = parameters
    times = net.neuron
    constants = {"tau_mem": times.tau_mem, "tau_syn": times.tau_syn, "dt": dt}
    neuron: ExactLIF | ExactAdEx = ExactLIF(**constants)
    if isinstance(times, AdEx):
        extra = {"coupling": times.coupling, "jump": times.jump, "adaptation_start": times.start}
        neuron = ExactAdEx(**constants, tau_adapt=times.tau_adapt, sharpness=times.sharpness, **extra)
    steps = round(net.until / dt) + 1
    spikes = torch.zeros(steps, 1, weight.shape[1], dtype=torch.float64)
    for pre, time in net.inputs:
        if round(time / dt) < steps:
            spikes[round(time / dt), 0, pre] += 1.0  # two of one step count as one of twice the weight
    jumps = exact_arrivals(spikes, None, weight, delay / dt, neuron.tau_syn, dt)
    result = exact_rollout(*jumps, neuron, inner, (lag / dt - 1).clamp(min=0), self_connections=False)
    loss = (result.membrane[-1, 0] * torch.as_tensor(READOUT[: len(weight)])).sum()
    return loss, int(result.spikes.sum())


def cosine(mine: np.ndarray, judge: np.ndarray) -> float:
    return float((mine * judge).sum() / np.sqrt((mine**2).sum() * (judge**2).sum()))


def discrete_gradients(net: Net, dt: float) -> list[np.ndarray]:
    leaves = [torch.tensor(x, requires_grad=True) for x in net.parameters]
    loss, spikes = stepped(net, leaves, dt)
    loss.backward()
    assert spikes == len(run(net, tangents=False).spikes)
    return [leaf.grad.numpy() for leaf in leaves]


@pytest.mark.parametrize(("dt", "least"), MARKS)
def test_every_random_net_has_the_gradients_of_continuous_time(dt: float, least: float) -> None:
    """All of 24 nets, none chosen: the same number of spikes, and the cosine of every group that has a gradient."""
    compared = 0
    for seed in range(24):
        net = drawn(seed)
        judges = net.at(READOUT @ run(net).state_tangent[:, 0]).parameters
        for mine, judge in zip(discrete_gradients(net, dt), judges, strict=True):
            if judge.any():  # in one net the last neuron to be reached by a recurrent spike has no part in the loss
                assert cosine(mine, judge) >= least
                assert np.linalg.norm(mine) == pytest.approx(np.linalg.norm(judge), rel=dt)
                compared += 1
    assert compared >= 4 * 24 - 2


@pytest.mark.parametrize(("dt", "least"), MARKS)
def test_so_have_positions_in_every_random_net(dt: float, least: float) -> None:
    """In one of them a spike comes so close to the end that at 0.1 ms it falls to the other side."""
    compared = 0
    for seed in range(24):
        places = np.random.default_rng(100 + seed).standard_normal((7, 2)) * 1.5
        net = in_space(drawn(seed), places)
        leaf = torch.tensor(places, requires_grad=True)
        delays = torch.sqrt(0.01 + ((leaf[:, None] - leaf[None]) ** 2).sum(-1))[4:]
        weight, _, inner, _ = (torch.tensor(x) for x in net.parameters)
        loss, spikes = stepped(net, [weight, delays[:, :4], inner, delays[:, 4:]], dt)
        loss.backward()
        result = run(net)
        if spikes != len(result.spikes):
            continue
        compared += 1
        judges = net.at(READOUT @ result.state_tangent[:, 0]).parameters
        assert cosine(leaf.grad.numpy(), by_places(places, np.concatenate([judges[1], judges[3]], 1))) >= least
    assert compared >= 23


@pytest.mark.parametrize(("dt", "least"), MARKS)
def test_discrete_gradients_point_where_finite_differences_of_the_continuous_net_do(dt: float, least: float) -> None:
    net = lif_net(10.33)
    judges = net.at(finite_differences(lambda flat: potential(net.at(flat)), net.flat())).parameters
    for mine, judge in zip(discrete_gradients(net, dt), judges, strict=True):
        assert cosine(mine, judge) >= least
        assert np.linalg.norm(mine) == pytest.approx(np.linalg.norm(judge), rel=3 * dt)


@pytest.mark.parametrize(("dt", "least"), MARKS)
def test_and_so_do_the_gradients_of_positions_in_space(dt: float, least: float) -> None:
    places = np.random.default_rng(1).standard_normal((7, 2)) * 1.5
    net = in_space(lif_net(10.33), places)
    judge = finite_differences(lambda flat: potential(in_space(net, flat)), places.ravel())
    leaf = torch.tensor(places, requires_grad=True)
    square = ((leaf[:, None] - leaf[None]) ** 2).sum(-1)
    delays = torch.sqrt(0.01 + square)[4:]
    weight, _, inner, _ = (torch.tensor(x) for x in net.parameters)
    loss, spikes = stepped(net, [weight, delays[:, :4], inner, delays[:, 4:]], dt)
    loss.backward()
    assert spikes == len(run(net, tangents=False).spikes) > 5
    assert cosine(leaf.grad.numpy().ravel(), judge) >= least


def test_so_do_those_of_adex_with_the_tangents_of_the_continuous_net_as_judge() -> None:
    net = adex_net(14.0)
    size = len(net.parameters[0])
    judge = READOUT[:size] @ run(net).state_tangent[:, 0]
    for mine, tangent in zip(discrete_gradients(net, 0.02), net.at(judge).parameters, strict=True):
        assert cosine(mine, tangent) >= 0.999


MISPRINTS = {
    "eq 16": ("(tau_syn * (sent - kept) * here)", "(tau_syn * (kept - sent) * here)"),
    "eq 27": ("(kept * here)", "((2 * torch.exp((early - lack.detach()) * dt / tau_syn) * sent - kept) * here)"),
    "eq 9": ("neuron.slope(state, lead).clamp", "(neuron.slope(state, lead) + 1 / 10 - 10).abs().clamp"),
}
FIRST, *OTHERS = MISPRINTS


def broken(old: str, new: str) -> types.ModuleType:
    source = inspect.getsource(plain)
    assert source.count(old) == 1
    module = types.ModuleType("broken")
    exec(compile(source.replace(old, new), "broken", "exec"), module.__dict__)
    return module


def put_back(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    module = broken(old, new)
    for name in ("arrivals", "rollout"):
        monkeypatch.setitem(dispatch._found, (f"spatial_exact_{name}", "torch"), getattr(module, name))


@pytest.mark.parametrize("printed", [FIRST, *(pytest.param(one, marks=pytest.mark.slow) for one in OTHERS)])
def test_a_misprint_put_back_into_the_steps_turns_the_gradient(printed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = lif_net(10.33)
    judge = net.at(READOUT @ run(net).state_tangent[:, 0]).parameters
    with backend("torch"):
        right = [cosine(x, y) for x, y in zip(discrete_gradients(net, 0.1), judge, strict=True)]
        put_back(monkeypatch, *MISPRINTS[printed])
        wrong = [cosine(x, y) for x, y in zip(discrete_gradients(net, 0.1), judge, strict=True)]
    assert min(right) >= 0.97 > 0.9 > min(wrong)


def test_an_adaptation_without_its_second_term_turns_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    net = adex_net(14.0)
    judge = net.at(READOUT[:2] @ run(net).state_tangent[:, 0]).parameters
    monkeypatch.setattr(ExactAdEx, "adaptation_rate", property(lambda self: self.jump / self.tau_adapt))
    assert min(cosine(x, y) for x, y in zip(discrete_gradients(net, 0.02), judge, strict=True)) < 0.999


def arrival_just_after_a_spike(dt: float = 0.01) -> tuple[float, float]:
    """An arrival that shares its step with a spike but follows it: gradient by its delay, in steps and continuous."""
    weight, delay = np.array([[0.9, 0.2]]), np.array([[0.5, 1.0]])
    none = np.zeros((1, 1))
    first = run(Net((weight, delay, none, none), ((0, 0.0),), 6.0), tangents=False).spikes[0][0]
    step = np.ceil(first / dt) * dt
    net = Net((weight, delay, none, none), ((0, 0.0), (1, float(step - 1.0))), float(step + 3.0))
    found = finite_differences(lambda flat: potential(net.at(flat)), net.flat(), 1e-7)[3]
    leaves = [torch.tensor(x, requires_grad=True) for x in net.parameters]
    loss, spikes = stepped(net, leaves, dt)
    loss.backward()
    assert spikes == 1
    return float(leaves[1].grad[0, 1]), float(found)


@pytest.mark.slow
def test_an_arrival_of_a_spikes_own_step_is_not_reset_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, judge = arrival_just_after_a_spike()
    assert mine == pytest.approx(judge, rel=0.01)
    with backend("torch"):
        assert arrival_just_after_a_spike()[0] == pytest.approx(judge, rel=0.01)
        put_back(  # eq 10 as printed: the arrival counts before the reset
            monkeypatch, "first = _fires_first(", "first = torch.zeros_like(fired) & _fires_first("
        )
        assert arrival_just_after_a_spike()[0] != pytest.approx(judge, rel=0.05)
