"""Recurrent layers, their plain autograd loop, and the ways they can be computed: what tests of the rollout share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from delaykit.functional.dispatch import backend as choose_backend
from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.recurrence import RolloutState, rollout
from delaykit.functional.recurrence.connection import grid
from delaykit.functional.tents import Tents

STEPS, BATCH, NEURONS = 13, 3, 5


GRANULARITIES = {"layer": (1, 1), "axonal": (1, NEURONS), "dendritic": (NEURONS, 1), "synaptic": (NEURONS, NEURONS)}


RESETS = [
    dict(reset="none"),
    dict(reset="subtract", reset_when="next"),
    dict(reset="subtract", reset_when="next", detach_reset=False),
    dict(reset="zero", reset_when="next", reset_value=-0.2),
    dict(reset="zero", reset_when="next", reset_spares_input=True, reset_value=0.1),
    dict(reset="zero", reset_when="next", reset_spares_input=True, detach_reset=False),
    dict(reset="subtract", reset_when="same"),
    dict(reset="subtract", reset_when="same", detach_reset=False),
    dict(reset="zero", reset_when="same", reset_value=0.1),
    dict(reset="zero", reset_when="same", detach_reset=False, reset_value=-0.3),
    dict(reset="subtract", reset_when="both", detach_reset=False),
    dict(reset="zero", reset_when="both", detach_reset=False, reset_value=0.1),
    dict(reset="zero", reset_when="both", reset_spares_input=True, detach_reset=False),
]


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad / (1 + (3 * x) ** 2)


spike = Spike.apply


def smooth(x: Tensor) -> Tensor:
    return torch.sigmoid(3 * x)


@pytest.fixture(name="backend", params=["numba", "numba taps", "torch"])
def every_backend(request, monkeypatch):
    if request.param == "torch":
        with choose_backend("torch"):
            yield
        return
    pytest.importorskip("numba", reason="the Numba kernels need numba")
    if request.param == "numba taps":  # not by windows: as for kernels that are no plain triangle
        monkeypatch.setattr(grid, "tents_connection", lambda *_: None)
    yield


def sparsest(kernel, delays):
    """The form that a wrapped neuron's rollout gets."""
    return kernel.tents(delays) or kernel.taps(delays)


def leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_()


def naive(currents, weight, bias, taps, dynamics, state=None, mask=None):
    """The equations as they stand: every step sums the whole past through the dense response."""
    state = state or RolloutState()
    taps = taps.taps() if isinstance(taps, Tents) else taps
    synapse, membrane = dynamics.start(currents[0])
    synapse = synapse if state.synapse is None else state.synapse
    membrane = membrane if state.membrane is None else state.membrane
    x = [torch.zeros_like(currents[0]) if state.spikes is None else state.spikes]
    response = None
    if weight is not None:
        shape = torch.ones(1, 1, 1) if taps is None else taps.response(int(taps.index.max()) + 1)
        response = weight.unsqueeze(-1) * shape.to(currents)
    membranes = []
    for t, drive in enumerate(currents):
        if response is not None:
            total = sum(x[t - k] @ response[..., k].T for k in range(min(response.shape[-1], t + 1)))
            total = total if bias is None else total + bias
            drive = drive + (total if mask is None else mask * total)
        spikes, (synapse, membrane) = dynamics.step(drive, (synapse, membrane))
        x.append(spikes)
        membranes.append(membrane)
    return torch.stack(x[1:]), torch.stack(membranes), RolloutState(x[-1], synapse, membrane)


class Case:
    """One layer with every number a leaf that wants its gradient."""

    def __init__(self, seed, shape, kernel, surrogate=spike, synapse=True, state=False, mask=True, **reset):
        g = torch.Generator().manual_seed(seed)

        def draw(*size, low=0.0, high=1.0):
            return leaf(low + (high - low) * torch.rand(*size, generator=g, dtype=torch.float64))

        n = NEURONS
        self.leaves = {
            "currents": draw(STEPS, BATCH, n, low=-0.6, high=1.4),
            "weight": draw(n, n, low=-0.8, high=1.0),
            "bias": draw(n, low=-0.2, high=0.2),
            "decay": draw(n, low=0.5, high=0.95),
            "gain": draw(n, low=0.5, high=1.0),
            "offset": draw(1, low=-0.1, high=0.1)[0].detach().requires_grad_(),
            "threshold": draw(n, low=0.5, high=0.9),
        }
        if shape is not None:
            self.leaves["delay"] = draw(*shape, high=4.0)
        if synapse:
            self.leaves["synapse_decay"] = draw(1, low=0.2, high=0.6)
        if "reset_value" in reset:
            value = leaf(torch.tensor(reset["reset_value"], dtype=torch.float64))
            reset["reset_value"] = self.leaves["reset_value"] = value
        if state:
            self.leaves |= {k: draw(BATCH, n) for k in ("start_synapse", "start_membrane")}
            if shape is None:
                self.leaves["start_spikes"] = draw(BATCH, n)
        self.kernel, self.reset, self.surrogate = kernel, reset, surrogate
        self.mask = (torch.rand(BATCH, n, generator=g) > 0.3).double() / 0.7 if mask else None
        shape_out = (STEPS, BATCH, n)
        self.cotangents = [torch.randn(s, generator=g, dtype=torch.float64) for s in (shape_out, shape_out, (BATCH, n))]

    def arguments(self):
        p = self.leaves
        taps = sparsest(self.kernel, p["delay"]) if "delay" in p else None
        numbers = ("decay", "gain", "offset", "threshold", "synapse_decay")
        dynamics = LIFDynamics(surrogate=self.surrogate, **{k: p[k] for k in numbers if k in p}, **self.reset)
        state = None
        if "start_membrane" in p:
            synapse = p["start_synapse"] if "synapse_decay" in p else None
            state = RolloutState(p.get("start_spikes"), synapse, p["start_membrane"])
        return p["currents"], p["weight"], p["bias"], taps, dynamics, state, self.mask

    def run(self, function):
        spikes, membrane, last = function(*self.arguments())
        loss = (spikes * self.cotangents[0]).sum() + (membrane * self.cotangents[1]).sum()
        if last.synapse is not None and "synapse_decay" in self.leaves:
            loss = loss + (last.synapse * self.cotangents[2]).sum()
        loss = loss + (last.membrane * self.cotangents[2]).sum() * 0.5
        names = [k for k in self.leaves if "synapse" not in k or "synapse_decay" in self.leaves]
        grads = torch.autograd.grad(loss, [self.leaves[k] for k in names], allow_unused=True)
        return spikes, membrane, dict(zip(names, grads, strict=True))


def assert_equal_to_naive(case: Case, tolerance: float = 1e-10) -> None:
    spikes, membrane, grads = case.run(rollout)
    expected_spikes, expected_membrane, expected = case.run(naive)
    torch.testing.assert_close(spikes, expected_spikes, rtol=0, atol=1e-12)
    torch.testing.assert_close(membrane, expected_membrane, rtol=tolerance, atol=tolerance)
    for name, grad in grads.items():
        want = expected[name]
        assert want is None or grad is not None, name
        if grad is not None:
            want = torch.zeros_like(grad) if want is None else want
            torch.testing.assert_close(grad, want, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")
