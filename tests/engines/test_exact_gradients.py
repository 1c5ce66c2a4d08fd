"""The estimator switch on one connection: fields, values, and the exact gradient against its formula, term by term."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.arrivals import Linear
from delaykit.errors import ConfigError, HistoryError
from delaykit.functional.event_gradients.rule import (
    Continued,
    Emission,
    NeuronConstants,
    Replaced,
    deliver,
    emission_of,
    emissions_of,
    whole_taps,
)
from delaykit.functional.event_gradients.tape import ExactLinearTape, ExactLineTape, Receiver
from delaykit.functional.step_tape import LinearTape
from delaykit.synapse import Product, Synapse

TIME, BATCH, PRE, POST = 12, 2, 4, 3
SHAPES = {"layer": (1, 1), "axonal": (1, PRE), "dendritic": (POST, 1), "synaptic": (POST, PRE)}
DOUBLE = torch.float64


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def timing(vector=False):
    alpha = torch.tensor([0.55, 0.7, 0.8] if vector else 0.7, dtype=DOUBLE)
    beta = torch.tensor([0.9, 0.7, 0.6] if vector else 0.85, dtype=DOUBLE)
    return NeuronConstants(alpha, beta)


# --- the switch


@pytest.mark.parametrize("estimator", ["interp", "exact", "none"])
def test_the_field_survives_json(estimator):
    config = dk.FreeDelay("axonal", estimator=estimator)
    again = dk.FreeDelay.from_json(json.loads(json.dumps(config.to_json())))
    assert again == config and again.build(dk.Site("a", PRE, POST)).estimator == estimator


def test_the_default_is_interp():
    assert dk.FreeDelay().build(dk.Site("a", PRE, POST)).estimator == dk.PointDelay.estimator == "interp"


@pytest.mark.parametrize(
    "options", [{"estimator": "exakt"}, {"estimator": "exact", "kernel": "triangle", "spread": 2.0}]
)
def test_an_estimator_that_cannot_be_is_refused(options):
    with pytest.raises(ConfigError):
        dk.FreeDelay("axonal", **options)


def test_hard_arrivals_can_be_learned_by_the_exact_estimator_only():
    dk.FreeDelay("axonal", kernel="hard", estimator="exact")
    with pytest.raises(ConfigError):
        dk.FreeDelay("axonal", kernel="hard")


def synapse(granularity, estimator):
    config = dk.FreeDelay(granularity, max_delay=5, init=2.3, estimator=estimator)
    return Synapse(dk.Site("a", PRE, POST), (config,)).double()


def run(part, weight, spikes):
    product = Product(lambda x: nn.functional.linear(x, weight), None, weight, None)
    engine = part.engine(product)
    tape = engine.tape()
    return torch.stack([engine.step(tape, x) for x in spikes]), engine.sequence(spikes)


@pytest.mark.parametrize("granularity", SHAPES)
def test_none_has_the_values_of_interp_and_leaves_delays_alone(granularity):
    spikes = random(TIME, BATCH, PRE).requires_grad_()
    found = {}
    for estimator in ("interp", "none"):
        part, weight = synapse(granularity, estimator), random(POST, PRE, seed=1).requires_grad_()
        stepped, whole = run(part, weight, spikes)
        leaves = [weight, spikes, part.delay.delay]
        ways = [
            torch.autograd.grad((y**2).sum(), leaves, allow_unused=True, retain_graph=True) for y in (stepped, whole)
        ]
        found[estimator] = stepped, whole, ways
    for one, two in zip(found["interp"][:2], found["none"][:2], strict=True):
        assert torch.equal(one, two)
    for interp, none in zip(found["interp"][2], found["none"][2], strict=True):
        assert torch.equal(interp[0], none[0]) and torch.equal(interp[1], none[1])
        assert none[2] is None and interp[2].abs().min() > 0
    weight = random(POST, PRE, seed=1)
    assert torch.equal(synapse(granularity, "none").impulse_response(weight), part.impulse_response(weight))


def test_exact_arrivals_are_whole():
    delays = torch.tensor([[0.0, 1.4, 2.6]])
    assert whole_taps(delays).response(4)[0].argmax(-1).tolist() == [0, 1, 3]
    part = dk.FreeDelay("axonal", init=[0.0, 1.4, 2.6], estimator="exact").build(dk.Site("a", 3, 1))
    assert torch.equal(part.impulse_response(torch.ones(1, 3)), whole_taps(delays).response(4))


def test_a_lone_exact_synapse_says_that_nobody_listens():
    with pytest.raises(ConfigError, match="interp"):
        run(synapse("axonal", "exact"), random(POST, PRE), random(TIME, BATCH, PRE))


# --- the constants


@pytest.mark.parametrize(("tau_s", "tau_m"), [(2.0, 10.0), (10.0, 2.0), (5.0, 5.0), (5.0, 5.0 + 1e-9), (3.0, math.inf)])
def test_the_response_is_the_integral_of_the_current(tau_s, tau_m):
    alpha, beta = (torch.tensor(math.exp(-1 / tau)).double() for tau in (tau_s, tau_m))
    found = NeuronConstants(alpha, beta).response()
    at = (torch.arange(20000, dtype=DOUBLE) + 0.5) / 20000
    integral = (torch.exp(-at / tau_s) * torch.exp(-(1 - at) / tau_m)).mean()
    torch.testing.assert_close(found, integral, rtol=1e-8, atol=0)


def test_the_gradient_of_an_arrival_below_threshold_is_that_of_continuous_time():
    rule, last, weight = timing(), 9, 1.7
    rate_s, rate_m = (float(rate) for rate in rule.rates())

    def membrane(arrival):  # at the end of step `last`, of a current of weight / K that arrives at `arrival`
        past = last + 1 - arrival
        kernel = (math.exp(-rate_s * past) - math.exp(-rate_m * past)) / (rate_m - rate_s)
        return weight / float(rule.response()) * kernel

    drive = torch.zeros(last + 1, dtype=DOUBLE, requires_grad=True)
    syn = mem = torch.zeros((), dtype=DOUBLE)
    for x in drive + weight * (torch.arange(last + 1) == 3):
        syn = rule.alpha * syn + x
        mem = rule.beta * mem + syn
    assert mem.item() == pytest.approx(membrane(3.0), rel=1e-12)
    g = torch.cat([torch.autograd.grad(mem, drive)[0], torch.zeros(1)])
    now, later = rule.arrival()
    difference = (membrane(3.0 + 1e-5) - membrane(3.0 - 1e-5)) / 2e-5
    assert float(weight * (now * g[3] + later * g[4])) == pytest.approx(difference, rel=1e-8)
    assert abs(difference) > 0.01


# --- the tape


def by_hand(x, delays, weight, g, rule, first=0):
    """Gradients of weight, delays and spike times from those of the currents, one synapse and step at a time."""
    now, later = (c.expand(POST) for c in rule.arrival())
    after = torch.cat([g[1:], torch.zeros_like(g[:1])])
    h = now * g + later * after
    d_weight, d_delay, d_time = torch.zeros(POST, PRE), torch.zeros(POST, PRE), torch.zeros_like(x)
    full = delays.expand(POST, PRE)
    for j, i, t in itertools.product(range(POST), range(PRE), range(len(x))):
        at = t + round(float(full[j, i].detach()))
        if first <= at < len(x):
            d_weight[j, i] += (x[t, :, i] * g[at, :, j]).sum()
            d_delay[j, i] += (x[t, :, i] * weight[j, i] * h[at, :, j]).sum()
            d_time[t, :, i] += x[t, :, i] * weight[j, i] * h[at, :, j]
    for dim, size in enumerate(delays.shape):
        if size == 1:
            d_delay = d_delay.sum(dim, keepdim=True)
    return d_weight, d_delay, d_time


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(DOUBLE)
    yield
    torch.set_default_dtype(torch.float32)


def setting(granularity, seed=0):
    weight = (random(POST, PRE, seed=seed) - 0.4).requires_grad_()
    bias = random(POST, seed=seed + 1).requires_grad_()
    delays = (3.0 * random(*SHAPES[granularity], seed=seed + 2)).requires_grad_()
    spikes = (random(TIME, BATCH, PRE, seed=seed + 3) < 0.4).double() * (1 + random(TIME, BATCH, PRE, seed=seed + 4))
    g = random(TIME, BATCH, POST, seed=seed + 5) - 0.5
    return weight, bias, delays, spikes, g


def emitted(spikes):
    """Spikes that a neuron emitted with slope 1, so that minus its membrane's gradient is that of the spikes' times."""
    membrane = torch.zeros_like(spikes, requires_grad=True)
    unit = torch.ones_like(spikes[0])
    steps = [Emission.apply(s, m, unit / s.clamp(min=1e-30)) for s, m in zip(spikes, membrane, strict=True)]
    return steps, membrane


@pytest.mark.parametrize("vector", [False, True])
@pytest.mark.parametrize("granularity", SHAPES)
def test_the_tape_gives_the_gradients_of_the_formula(granularity, vector):
    weight, bias, delays, spikes, g = setting(granularity)
    steps, membrane = emitted((spikes > 0).double())
    rule = timing(vector)
    tape = ExactLinearTape(whole_taps(delays), weight, bias, Receiver("here", rule, True))
    plain = LinearTape(Linear().taps(delays.detach().round()), weight, bias)
    out = torch.stack([tape.step(x) for x in steps])
    torch.testing.assert_close(out, torch.stack([plain.step(x.detach()) for x in steps]), rtol=1e-14, atol=1e-14)
    wanted = by_hand((spikes > 0).double(), delays, weight.detach(), g, rule)
    for _ in range(2):  # and once more through the same graph
        found = torch.autograd.grad((out * g).sum(), [weight, delays, membrane, bias], retain_graph=True)
        torch.testing.assert_close(found[0], wanted[0], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found[1], wanted[1], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found[2], -wanted[2], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found[3], g.sum((0, 1)), rtol=1e-12, atol=1e-12)
    (alone,) = torch.autograd.grad((out * g).sum(), [delays])
    assert torch.equal(alone, found[1])


def test_a_masked_spike_weighs_what_the_mask_says():
    weight, bias, delays, spikes, g = setting("synaptic")
    steps, membrane = emitted((spikes > 0).double())
    tape = ExactLinearTape(whole_taps(delays), weight, bias, Receiver("here", timing(), True))
    mask = 2.0 * (random(TIME, BATCH, PRE, seed=9) < 0.5)
    out = torch.stack([tape.step(x * m) for x, m in zip(steps, mask, strict=True)])
    wanted = by_hand((spikes > 0) * mask, delays, weight.detach(), g, timing())
    found = torch.autograd.grad((out * g).sum(), [weight, delays, membrane])
    for one, two in zip(found, (*wanted[:2], -wanted[2]), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


def test_a_cut_tape_remembers_spikes_and_forgets_their_times():
    weight, bias, delays, spikes, g = setting("synaptic")
    steps, membrane = emitted((spikes > 0).double())
    tape = ExactLinearTape(whole_taps(delays), weight, bias, Receiver("here", timing(), True), remember=8)
    for x in steps[:6]:
        tape.step(x)
    tape.detach()
    tape.rebind(whole_taps(delays), weight, bias)
    out = torch.stack([tape.step(x) for x in steps[6:]])
    found = torch.autograd.grad((out * g[6:]).sum(), [weight, delays, membrane])
    wanted = by_hand((spikes > 0).double(), delays, weight.detach(), g, timing(), first=6)
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[2][6:], -wanted[2][6:], rtol=1e-12, atol=1e-12)
    assert not found[2][:6].any()


def test_data_gets_the_gradient_of_its_values():
    weight, bias, delays, spikes, g = setting("synaptic")
    spikes.requires_grad_()
    tape = ExactLinearTape(whole_taps(delays), weight, bias, Receiver("here", timing(), False))
    plain = LinearTape(Linear().taps(delays.detach().round()), weight, bias)
    one, two = (
        torch.autograd.grad((torch.stack([t.step(x) for x in spikes]) * g).sum(), spikes)[0] for t in (tape, plain)
    )
    torch.testing.assert_close(one, two, rtol=1e-14, atol=1e-14)


def test_a_line_has_the_gradients_of_the_matrix():
    weight, _, delays, spikes, g = setting("axonal")
    steps, membrane = emitted((spikes > 0).double())
    receiver = Receiver("here", timing(), True)
    line, matrix = (
        ExactLineTape(whole_taps(delays), receiver),
        ExactLinearTape(whole_taps(delays), weight, None, receiver),
    )
    leaves = [weight, delays, membrane]
    one = torch.stack([nn.functional.linear(line.step(x), weight) for x in steps])
    two = torch.stack([matrix.step(x) for x in steps])
    ways = (torch.autograd.grad((y * g).sum(), leaves, retain_graph=True) for y in (one, two))
    for found, wanted in zip(*ways, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_there_are_no_second_derivatives():
    weight, bias, delays, spikes, g = setting("synaptic")
    tape = ExactLinearTape(whole_taps(delays), weight, bias, Receiver("here", timing(), False))
    with pytest.raises(HistoryError, match="create_graph"):
        torch.autograd.grad((tape.step(spikes[0]) * g[0]).sum(), delays, create_graph=True)


# --- spikes and resets


def test_an_emission_keeps_the_librarys_gradient_beside_that_of_times():
    spikes = torch.tensor([[0.0, 1.0, 1.0]], requires_grad=True)
    membrane = torch.zeros(1, 3, requires_grad=True)
    out = Emission.apply(spikes, membrane, torch.tensor([[0.5, 0.5, 2.0]]))
    out.register_hook(lambda grad: deliver(emission_of(out, "here", True), torch.tensor([[3.0, 3.0, 3.0]])))
    values, times = torch.autograd.grad(out.sum(), [spikes, membrane])
    assert values.tolist() == [[1.0, 1.0, 1.0]]
    assert times.tolist() == [[0.0, -6.0, -1.5]]  # -g / v', where there is a spike


def test_a_reset_scales_the_gradient_and_not_the_value():
    membrane, value = torch.tensor([1.2, 0.3], requires_grad=True), torch.tensor([0.0, 0.3])
    out = Continued.apply(membrane, torch.tensor([4.0, 1.0]), value)
    assert torch.equal(out, value)
    assert torch.autograd.grad(out.sum(), membrane)[0].tolist() == [4.0, 1.0]
    other = torch.tensor([5.0, 6.0], requires_grad=True)
    replaced = Replaced.apply(membrane, other, torch.tensor([1.0, 0.0]))
    assert [g.tolist() for g in torch.autograd.grad(replaced.sum(), [membrane, other])] == [[0.0, 1.0], [1.0, 0.0]]
    assert torch.equal(replaced, membrane)


def spikes_of_a_neuron():
    return Emission.apply(torch.ones(2, 4), torch.ones(2, 4, requires_grad=True), torch.ones(2, 4))


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s,
        lambda s: s.float(),
        lambda s: s * torch.ones(2, 4),
        lambda s: nn.functional.dropout(s, 0.5),
        lambda s: s.reshape(2, 2, 2).flatten(1).clone(),
        lambda s: (s.unsqueeze(0) / 2).squeeze(0),
    ],
)
def test_a_neuron_is_found_through_what_keeps_spikes_apart(change):
    spikes = spikes_of_a_neuron()
    assert emission_of(change(spikes), "here", True) is spikes.grad_fn


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s + spikes_of_a_neuron(),
        lambda s: s.sum(0),
        lambda s: s[:, :2],
        lambda s: s.transpose(0, 1),
        lambda s: s * torch.ones(4, requires_grad=True),
        lambda s: nn.functional.linear(s, torch.eye(4)),
    ],
)
def test_a_neuron_that_cannot_be_found_is_an_error(change):
    with pytest.raises(HistoryError, match="interp"):
        emission_of(change(spikes_of_a_neuron()), "fc2", True)


def test_data_has_no_neuron():
    assert emission_of(torch.ones(2, 4), "here", False) is None
    assert emission_of(nn.Linear(4, 4)(torch.ones(2, 4)).relu(), "here", False) is None
    assert emission_of(torch.ones(2, 4), "here", True) is None  # spikes of a step that nothing learned has reached


def test_neurons_are_found_behind_a_stacked_sequence():
    steps = [spikes_of_a_neuron(), torch.zeros(2, 4), spikes_of_a_neuron()]
    sources = emissions_of(torch.stack(steps).float(), "here", True)
    assert sources == [steps[0].grad_fn, None, steps[2].grad_fn]
    with pytest.raises(HistoryError):
        emissions_of(torch.stack(steps, 1), "here", True)
    assert emissions_of(torch.zeros(3, 2, 4), "here", True) == [None] * 3
