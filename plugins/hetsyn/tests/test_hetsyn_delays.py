"""A delay and a time constant on one synapse: the response is ``w r^(tau - d)``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import delaykit as dk
from delaykit.functional.reference import causal_convolution
from delaykit.testing.nets.reference import surrogate_spike
from delaykit_hetsyn import HetSyn

snn = pytest.importorskip("snntorch", reason="needs snnTorch, the extra `snntorch`")
TIME, PRE, POST, BETA = 16, 5, 4, 0.75


class Net(nn.Module):
    """One connection, one neuron that never fires, so that its membrane is the response."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.fc, self.kind = nn.Linear(PRE, POST, bias=False), kind
        options = {"alpha": BETA, "beta": 0.5} if kind == "Synaptic" else {"beta": BETA}
        self.lif = getattr(snn, kind)(threshold=1e9, **options) if kind else None

    def forward(self, x: Tensor) -> Tensor:
        if self.lif is None:
            return torch.stack([self.fc(step) for step in x])
        state = self.lif.reset_mem()
        state, out = state if isinstance(state, tuple) else (state,), []
        for step in x:
            state = self.lif(self.fc(step), *state)[1:]
            out.append(state[0])  # what the input adds up in: the membrane, or the synaptic current
        return torch.stack(out)


class Whole(Net):
    """The connection is given the whole sequence at once."""

    def forward(self, x: Tensor) -> Tensor:
        currents, membrane, out = self.fc(x), self.lif.reset_mem(), []
        for current in currents:
            _, membrane = self.lif(current, membrane)
            out.append(membrane)
        return torch.stack(out)


def build(granularity: str, delays: Any, net: Net) -> Any:
    example = torch.zeros(6, 1, PRE, dtype=torch.float64)
    parts = (dk.FreeDelay(granularity, max_delay=6, init=delays), HetSyn())  # type: ignore[arg-type]
    dk.wrap_(net.double(), {"fc": parts}, example=example)
    r = net.fc.dk.heterogeneity.r  # type: ignore[union-attr]
    r.data = 0.2 + 0.7 * torch.rand(r.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return net


def response(net: Any) -> Tensor:
    """Measure (post, pre, time): one spike of one input at a time."""
    pulses = torch.zeros(TIME, PRE, PRE, dtype=torch.float64)
    pulses[0] = torch.eye(PRE)
    return net(pulses).permute(2, 1, 0)


def power_law(net: Any, delay: Tensor) -> Tensor:
    """``w r^(tau - d)`` from d on; between whole steps the mean of its neighbours, as the linear kernel has it."""
    r, w, steps = net.fc.dk.heterogeneity.r, net.fc.weight, torch.arange(TIME, dtype=torch.float64)

    def whole(d: Tensor) -> Tensor:
        since = steps - d.unsqueeze(-1)
        return torch.where(since >= 0, w.unsqueeze(-1) * r.unsqueeze(-1) ** since.clamp(min=0), 0.0)

    delay = delay.to(w.dtype).expand(POST, PRE)
    part = (delay - delay.floor()).unsqueeze(-1)
    return (1 - part) * whole(delay.floor()) + part * whole(delay.floor() + 1)


CASES = [
    ("layer", 3.0, torch.tensor(3.0)),
    ("axonal", [0.0, 1.0, 2.5, 4.0, 6.0], torch.tensor([[0.0, 1.0, 2.5, 4.0, 6.0]])),
    ("dendritic", [0.0, 1.5, 3.0, 5.0], torch.tensor([[0.0], [1.5], [3.0], [5.0]])),
    ("synaptic", [[(i + 2 * j) % 7 / 1.0 for i in range(PRE)] for j in range(POST)], None),
]


@pytest.mark.parametrize("net", [Net(""), Net("Leaky"), Net("Synaptic"), Whole("Leaky")], ids=lambda n: n.kind)
@pytest.mark.parametrize(("granularity", "init", "delay"), CASES, ids=[c[0] for c in CASES])
def test_one_spike_leaves_w_r_to_the_tau_minus_d(granularity: str, init: Any, delay: Tensor | None, net: Net) -> None:
    bare = type(net)(net.kind)
    built = build(granularity, init, bare)
    delay = torch.tensor(init) if delay is None else delay
    torch.testing.assert_close(response(built), power_law(built, delay), rtol=0, atol=1e-12)


@pytest.mark.parametrize("net", [Net("Leaky"), Whole("Leaky")], ids=["steps", "sequence"])
@pytest.mark.parametrize("granularity", ["axonal", "dendritic", "synaptic"])
def test_gradients_of_delay_decay_and_weight_equal_the_dense_responses(granularity: str, net: Net) -> None:
    built = build(granularity, 2.3, type(net)("Leaky"))
    spikes = (torch.rand(TIME, 3, PRE, generator=torch.Generator().manual_seed(1)) < 0.3).double().requires_grad_()
    synapse = built.fc.dk
    leaves = [spikes, built.fc.weight, synapse.heterogeneity.r, synapse.delay.delay]
    dense = synapse.impulse_response(built.fc.weight, TIME)  # beyond the leak, which the neuron adds again
    current, membrane, wanted = causal_convolution(spikes, dense), 0.0, []
    for x in current:
        membrane = built.lif.beta * membrane + x
        wanted.append(membrane)
    weights = torch.randn(TIME, 3, POST, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    one, two = (torch.autograd.grad((weights * y).sum(), leaves) for y in (built(spikes), torch.stack(wanted)))
    for mine, true in zip(one, two, strict=True):
        torch.testing.assert_close(mine, true, rtol=1e-10, atol=1e-10)


def test_a_delayed_recurrent_connection_lingers_too() -> None:
    """One clock: tau counts from the connection's own input, the spikes of the step before."""
    options: dict[str, Any] = {"threshold": 0.5, "init_hidden": True, "spike_grad": surrogate_spike}
    net = snn.RLeaky(beta=BETA, linear_features=POST, **options).double()
    with torch.no_grad():
        net.recurrent.weight.copy_(-torch.rand(POST, POST, generator=torch.Generator().manual_seed(0)))
        net.recurrent.bias.zero_()
    root = nn.Sequential(net)
    parts = (dk.FreeDelay("axonal", max_delay=6, init=2.0), HetSyn())

    def run() -> Tensor:
        net.reset_mem()
        return torch.stack([_membrane(root, net, x) for x in pulse])

    pulse = torch.zeros(TIME, 1, POST, dtype=torch.float64)
    pulse[0, 0, 0] = 0.6  # the first neuron fires once, at step 0
    dk.wrap_(root, {"0.recurrent": parts}, example=run)
    net.recurrent.dk.heterogeneity.r.data.fill_(0.9)
    found, weight = run(), net.recurrent.weight[1:, 0]
    tau = torch.arange(TIME, dtype=torch.float64) - 1 - 2  # a step of latency, and two of delay
    wanted = torch.where(tau >= 0, weight.unsqueeze(-1) * 0.9 ** tau.clamp(min=0), 0.0)
    torch.testing.assert_close(found[:, 0, 1:].t(), wanted, rtol=0, atol=1e-12)


def _membrane(root: nn.Module, neuron: Any, x: Tensor) -> Tensor:
    root(x)
    return neuron.mem
