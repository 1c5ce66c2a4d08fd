"""The fused rollout against the step loops of the real libraries, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.adapters.norse.dynamics import METHODS
from delaykit.adapters.norse.dynamics import dynamics_of as dynamics_of_norse
from delaykit.adapters.snntorch.dynamics import dynamics_of as dynamics_of_snntorch
from delaykit.functional.recurrence import RolloutState, rollout

snn = pytest.importorskip("snntorch", reason="compares with snntorch")
norse = pytest.importorskip("norse.torch", reason="compares with norse")

STEPS, BATCH, NEURONS = 20, 3, 6


class Spike(torch.autograd.Function):
    """snnTorch's own surrogates return float32, which its recurrent layers refuse in float64."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad / (1 + (3 * x) ** 2)


def data(low=-0.4, high=1.2):
    torch.manual_seed(0)
    drive = low + (high - low) * torch.rand(STEPS, BATCH, NEURONS, dtype=torch.float64)
    return drive.requires_grad_(), torch.randn(2, STEPS, BATCH, NEURONS, dtype=torch.float64)


def assert_same(fused, loop, leaves, cotangents):
    torch.testing.assert_close(fused[0], loop[0], rtol=0, atol=0)
    torch.testing.assert_close(fused[1], loop[1], rtol=1e-10, atol=1e-10)
    got, want = (
        torch.autograd.grad((s * cotangents[0]).sum() + (v * cotangents[1]).sum(), leaves, allow_unused=True)
        for s, v in (fused, loop)
    )
    for one, two, leaf in zip(got, want, leaves, strict=True):
        two = torch.zeros_like(leaf) if two is None else two
        torch.testing.assert_close(torch.zeros_like(leaf) if one is None else one, two, rtol=1e-10, atol=1e-10)


def snntorch_neuron(kind, reset, delay):
    torch.manual_seed(1)
    numbers = dict(beta=torch.linspace(0.6, 1.1, NEURONS), threshold=torch.linspace(0.5, 0.9, NEURONS))
    if "Synaptic" in kind:
        numbers |= dict(alpha=torch.linspace(0.2, 0.5, NEURONS), learn_alpha=True)
    if kind.startswith("R"):
        numbers |= dict(linear_features=NEURONS)
    numbers |= dict(learn_beta=True, learn_threshold=True, spike_grad=Spike.apply)
    return getattr(snn, kind)(**numbers, reset_mechanism=reset, reset_delay=delay).double()


def snntorch_loop(neuron, drive):
    kind = type(neuron).__name__
    count = {"Leaky": 1, "Synaptic": 2, "RLeaky": 2, "RSynaptic": 3}[kind]
    states, spikes, membranes = [torch.zeros_like(drive[0])] * count, [], []
    for x in drive:
        out = neuron(x, *states)
        states = out if kind.startswith("R") else out[1:]
        spikes.append(out[0])
        membranes.append(out[-1])
    return torch.stack(spikes), torch.stack(membranes)


KINDS = [(kind, delay) for kind in ("Leaky", "Synaptic", "RLeaky") for delay in (True, False)] + [("RSynaptic", True)]


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize(("kind", "delay"), KINDS)
def test_snntorch_loop(kind, reset, delay):
    neuron, (drive, cotangents) = snntorch_neuron(kind, reset, delay), data()
    loop = snntorch_loop(neuron, drive)
    recurrent = getattr(neuron, "recurrent", None)
    weight, bias = (None, None) if recurrent is None else (recurrent.weight, recurrent.bias)
    fused = rollout(drive, weight, bias, None, dynamics_of_snntorch(neuron))[:2]
    assert 0.05 < loop[0].mean() < 0.95
    assert_same(fused, loop, [drive, *neuron.parameters()], cotangents)


def test_snntorch_start_above_threshold_resets_the_first_step():
    neuron, (drive, cotangents) = snntorch_neuron("Leaky", "subtract", True), data()
    start = torch.full((BATCH, NEURONS), 2.0, dtype=torch.float64)
    membrane, loop = start, []
    for x in drive:
        spikes, membrane = neuron(x, membrane)
        loop.append((spikes, membrane))
    fused = rollout(drive, None, None, None, dynamics_of_snntorch(neuron), RolloutState(membrane=start))[:2]
    assert_same(fused, [torch.stack(x) for x in zip(*loop, strict=True)], [drive, *neuron.parameters()], cotangents)


SURROGATES = "atan fast_sigmoid triangular sigmoid spike_rate_escape heaviside SFS straight_through_estimator".split()


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_snntorch_surrogates_in_float32(surrogate):
    neuron = snn.Leaky(beta=0.8, spike_grad=getattr(snn.surrogate, surrogate)(), reset_delay=False)
    drive = data()[0].detach().float().requires_grad_()
    membrane, loop = torch.zeros_like(drive[0]), []
    for x in drive:
        spikes, membrane = neuron(x, membrane)
        loop.append((spikes, membrane))
    want = [torch.stack(x) for x in zip(*loop, strict=True)]
    got = rollout(drive, None, None, None, dynamics_of_snntorch(neuron))
    torch.testing.assert_close(got[0], want[0], rtol=0, atol=0)
    grads = [torch.autograd.grad((s * torch.arange(6.0)).sum() + v.sum(), drive)[0] for s, v in (got[:2], want)]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-4)


EDGES = [0.0, -0.0, 1e-45, -1e-45, 1e-7, -1e-7, 3.0, -3.0, float("inf"), -float("inf"), float("nan")]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_surrogates_known_to_fire_above_zero_do(dtype):
    x = torch.tensor(EDGES, dtype=dtype)
    neurons = [snn.Leaky(0.8, spike_grad=getattr(snn.surrogate, name)()) for name in SURROGATES] + [snn.Leaky(0.8)]
    found = [dynamics_of_snntorch(neuron) for neuron in neurons]
    for method in METHODS:
        p = {"method": method, "alpha": torch.tensor(5.0, dtype=dtype)}
        found += [dynamics_of_norse(norse.LIFCell(norse.LIFParameters(**p)))]
        found += [dynamics_of_norse(norse.LIFBoxCell(norse.LIFBoxParameters(**p)))]
    for neuron in found:
        assert neuron.heaviside
        assert torch.equal(neuron.surrogate(x).to(dtype), (x > 0).to(dtype))
    for own in (Spike.apply, lambda x: (x > 0).float()):
        assert not dynamics_of_snntorch(snn.Leaky(0.8, spike_grad=own)).heaviside


class Clipped(torch.autograd.Function):
    """A surrogate that bounds the gradient of each spike."""

    @staticmethod
    def forward(ctx, x):
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        return grad.clamp(-0.1, 0.1)


def test_a_surrogate_that_clips_runs_as_in_the_step_loop():
    torch.manual_seed(0)
    neuron, x = snn.RLeaky(0.8, threshold=0.5, linear_features=6, spike_grad=Clipped.apply), torch.rand(15, 3, 6)
    found = []
    for run in (lambda: steps(neuron, x), lambda: dk.rollout(neuron, x)[1]):
        neuron.zero_grad()
        run().square().sum().backward()
        found.append(neuron.recurrent.weight.grad.clone())
    torch.testing.assert_close(*found)


def steps(neuron, x):
    spikes, membrane = neuron.reset_mem()
    seen = []
    for one in x:
        spikes, membrane = neuron(one, spikes, membrane)
        seen.append(membrane)
    return torch.stack(seen)


def test_snntorch_neurons_that_are_not_representable():
    spike = Spike.apply
    assert dynamics_of_snntorch(snn.Leaky(beta=0.9, state_quant=lambda x: x)) is None
    assert dynamics_of_snntorch(snn.Leaky(beta=0.9, graded_spikes_factor=2.0)) is None
    assert dynamics_of_snntorch(snn.Leaky(beta=0.9, learn_graded_spikes_factor=True)) is None
    assert dynamics_of_snntorch(snn.Leaky(beta=0.9, spike_grad=snn.surrogate.SSO())) is None
    assert dynamics_of_snntorch(snn.Leaky(beta=0.9, spike_grad=snn.surrogate.LSO())) is None
    assert dynamics_of_snntorch(snn.Leaky(beta=0.9, spike_grad=snn.surrogate.custom_surrogate(lambda *x: x))) is None
    assert dynamics_of_snntorch(snn.RSynaptic(0.5, 0.9, linear_features=3, reset_delay=False)) is None
    assert dynamics_of_snntorch(snn.Leaky(beta=0.9, spike_grad=Spike.apply)) is not None
    assert dynamics_of_snntorch(snn.Leaky(beta=0.9, spike_grad=Clipped.apply)) is None
    for make in (lambda: snn.Leaky(0.9), lambda: snn.Synaptic(0.5, 0.9), lambda: snn.RLeaky(0.9, linear_features=3)):
        renamed, loaded, kept = make(), make(), make()
        assert dynamics_of_snntorch(kept).reset == "subtract"
        renamed.reset_mechanism = "zero"  # snnTorch goes on subtracting: its function was chosen at construction
        loaded.load_state_dict(loaded.state_dict() | {"reset_mechanism_val": torch.tensor(1)})
        assert dynamics_of_snntorch(renamed) is None and dynamics_of_snntorch(loaded) is None
    assert dynamics_of_snntorch(snn.Alpha(0.9, 0.8)) is None
    with pytest.warns(UserWarning, match="[Ii]nhibition"):
        assert dynamics_of_snntorch(snn.Leaky(beta=0.9, inhibition=True)) is None

    class Mine(snn.Leaky):
        pass

    assert dynamics_of_snntorch(Mine(beta=0.9, spike_grad=spike)) is None
    retyped = snn.Leaky(beta=0.9, spike_grad=spike)
    retyped.__class__ = type("Retyped", (snn.Leaky,), {"__module__": "delaykit.wrapping.apply"})
    assert dynamics_of_snntorch(retyped) is not None


def parameters_of(kind, **more):
    from norse.torch.functional.leaky_integrator import LIParameters
    from norse.torch.functional.leaky_integrator_box import LIBoxParameters
    from norse.torch.functional.lif import LIFParameters
    from norse.torch.functional.lif_box import LIFBoxParameters

    special = {"LIFBoxCell": LIFBoxParameters, "LICell": LIParameters, "LIBoxCell": LIBoxParameters}
    cls = special.get(kind, LIFParameters)
    numbers = {"tau_mem_inv": 300.0, "v_leak": 0.1, "tau_syn_inv": 450.0, "v_th": 0.3, "v_reset": -0.1, **more}
    leaves = {
        k: nn.Parameter(torch.tensor(v, dtype=torch.float64)) if isinstance(v, float) else v
        for k, v in numbers.items()
        if k in cls._fields
    }
    return cls(**leaves), leaves


def norse_loop(cell, drive, state):
    outs, membranes = [], []
    for x in drive:
        out, state = cell(x, state)
        outs.append(out)
        membranes.append(state.v)
    return torch.stack(outs), torch.stack(membranes), state


def norse_start(kind, like):
    from norse.torch.functional.leaky_integrator import LIState
    from norse.torch.functional.leaky_integrator_box import LIBoxState
    from norse.torch.functional.lif import LIFFeedForwardState, LIFState
    from norse.torch.functional.lif_box import LIFBoxFeedForwardState

    v, zero = torch.full_like(like, 0.1).detach(), torch.zeros_like(like).detach()
    return {
        "LIFRecurrentCell": lambda: LIFState(zero, v, zero),
        "LIFCell": lambda: LIFFeedForwardState(v, zero),
        "LIFBoxCell": lambda: LIFBoxFeedForwardState(v),
        "LICell": lambda: LIState(v, zero),
        "LIBoxCell": lambda: LIBoxState(v),
    }[kind]()


@pytest.mark.parametrize("method", ["super", "tanh", "circ"])
@pytest.mark.parametrize("kind", ["LIFCell", "LIFBoxCell", "LICell", "LIBoxCell"])
def test_norse_loop(kind, method):
    p, leaves = parameters_of(kind, method=method, alpha=torch.tensor(5.0, dtype=torch.float64))
    cell = getattr(norse, kind)(p)
    drive, cotangents = data()
    out, membrane, state = norse_loop(cell, drive, norse_start(kind, drive[0]))
    dynamics = dynamics_of_norse(cell)
    spikes, fused, last = rollout(drive, None, None, None, dynamics)
    if kind in ("LICell", "LIBoxCell"):
        assert dynamics.surrogate is None and torch.equal(out, membrane)  # a readout returns its membrane
        out = torch.zeros_like(out)
    else:
        assert 0.05 < out.mean() < 0.9
    if hasattr(state, "i"):
        torch.testing.assert_close(last.synapse, state.i, rtol=1e-10, atol=1e-10)
    used = [leaf for leaf in leaves.values() if isinstance(leaf, nn.Parameter)]
    assert_same((spikes, fused), (out, membrane), [drive, *used], cotangents)


@pytest.mark.parametrize("reset_name", ["reset_value", "reset_subtract"])
def test_norse_box_resets(reset_name):
    from norse.torch.functional import reset as resets

    p, leaves = parameters_of("LIFBoxCell", reset_method=getattr(resets, reset_name))
    cell, (drive, cotangents) = norse.LIFBoxCell(p), data()
    loop = norse_loop(cell, drive, norse_start("LIFBoxCell", drive[0]))[:2]
    used = [leaf for leaf in leaves.values() if isinstance(leaf, nn.Parameter)]
    assert_same(rollout(drive, None, None, None, dynamics_of_norse(cell))[:2], loop, [drive, *used], cotangents)


def test_norse_recurrent_loop():
    p, leaves = parameters_of("LIFRecurrentCell")
    torch.manual_seed(2)
    cell = norse.LIFRecurrentCell(NEURONS, NEURONS, p, autapses=True).double()
    inputs, cotangents = data(-1.0, 1.1)
    with torch.no_grad():
        cell.input_weights.abs_()
    loop = norse_loop(cell, inputs, norse_start("LIFRecurrentCell", inputs[0]))[:2]
    drive = inputs @ cell.input_weights.T
    fused = rollout(drive, cell.recurrent_weights, None, None, dynamics_of_norse(cell))[:2]
    assert 0.05 < loop[0].mean() < 0.9
    used = [leaf for leaf in leaves.values() if isinstance(leaf, nn.Parameter)]
    assert_same(fused, loop, [inputs, cell.input_weights, cell.recurrent_weights, *used], cotangents)


def test_norse_cells_that_are_not_representable():
    from norse.torch.functional.lif import LIFParameters
    from norse.torch.functional.lif_box import LIFBoxParameters

    assert dynamics_of_norse(norse.LIFCell(LIFParameters(method="adjoint"))) is None
    assert dynamics_of_norse(norse.LIFBoxCell(LIFBoxParameters(reset_method=lambda z, v, reset, th: v))) is None
    assert dynamics_of_norse(norse.LSNNCell()) is None
    assert dynamics_of_norse(norse.LIFCell()) is not None
    assert dynamics_of_snntorch(norse.LIFCell()) is None
