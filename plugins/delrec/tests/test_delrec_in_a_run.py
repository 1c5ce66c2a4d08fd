"""DelRec within a run, by hand: one dropout a sequence in every way to run it, and a spread that changes between steps.

The judge keeps every past input and its shape of arrival: ``I[t] = m (b + sum_k w max(0, s - |k - d|) / s^2 x[t - k])``
with ``s = 1 + sigma`` as it is at step t, and one mask ``m`` a sequence, 0 or 1 / (1 - p). Behind a dendritic delay
what is under way is the product, with the weight that made it.
"""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

import delaykit as dk
from delaykit_delrec import DelRec
from tests.networks.hand import spike

TIME, BATCH, PRE, POST, DROP, SIGMA, RHO = 20, 3, 5, 6, 0.5, 2.0, 0.98
AT, END = 8, 14
GRANULARITIES = ["layer", "axonal", "dendritic", "synaptic"]
X = (torch.rand(TIME, BATCH, PRE, generator=torch.Generator().manual_seed(0)) < 0.5).double()


class Late:
    """A matrix and its delays, by hand."""

    def __init__(self, weight: Tensor, bias: Tensor | None, delay: Tensor, granularity: str, sigma: float) -> None:
        self.weight, self.delay = (p.detach().clone().requires_grad_() for p in (weight, delay))
        self.bias = None if bias is None else bias.detach().clone().requires_grad_()
        self.granularity, self.sigma, self.rounded, self.mask = granularity, sigma, False, 1.0
        self.past: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        behind = self.granularity == "dendritic"
        self.past.insert(0, x @ self.weight.T if behind else x)
        d, s = (self.delay.round(), 1.0) if self.rounded else (self.delay, 1.0 + self.sigma)
        current = 0.0
        for k, late in enumerate(self.past):
            arrives = (s - (k - d).abs()).clamp(min=0) / s**2
            if behind:
                current = current + arrives.reshape(-1) * late
            else:
                current = current + late @ (self.weight * arrives).T
        return self.mask * (current if self.bias is None else current + self.bias)

    def cut(self) -> None:
        self.past = [x.detach() for x in self.past]

    def leaves(self) -> list[Tensor]:
        return [self.weight, self.delay, *([] if self.bias is None else [self.bias])]


class Called(nn.Module):
    """Let a module call the judge."""

    def __init__(self, late: Late) -> None:
        super().__init__()
        self.late = late

    def forward(self, x: Tensor) -> Tensor:
        return self.late(x)


class Snn(nn.Module):
    """A recurrent snnTorch neuron in a loop, a Linear before it."""

    def __init__(self) -> None:
        super().__init__()
        snn = pytest.importorskip("snntorch", reason="wraps snnTorch models")
        self.fc, self.neuron = nn.Linear(PRE, POST), snn.RLeaky(0.9, linear_features=POST, spike_grad=spike)

    def forward(self, x: Tensor) -> Tensor:
        out, (spikes, mem) = [], self.neuron.init_rleaky()
        for step in x:
            spikes, mem = self.neuron(self.fc(step), spikes, mem)
            out.append(mem)
        return torch.stack(out)

    def parts(self) -> tuple[Tensor, Tensor | None, nn.Module]:
        return self.neuron.recurrent.weight, self.neuron.recurrent.bias, self.neuron.recurrent.dk.delay

    def rolled(self, x: Tensor) -> Tensor:
        return dk.rollout(self.neuron, self.fc(x))[1]

    def by_hand(self, x: Tensor, late: Late) -> Tensor:
        twin = Snn().double()
        twin.load_state_dict({name: value for name, value in self.state_dict().items() if ".dk." not in name})
        twin.neuron.recurrent = Called(late)
        return twin(x)


class Norse(nn.Module):
    """A recurrent Norse cell in a loop."""

    def __init__(self) -> None:
        super().__init__()
        norse = pytest.importorskip("norse.torch", reason="wraps Norse models")
        self.neuron = norse.LIFRecurrentCell(PRE, POST)
        with torch.no_grad():
            self.neuron.input_weights.mul_(4.0)

    def forward(self, x: Tensor) -> Tensor:
        out, state = [], None
        for step in x:
            _, state = self.neuron(step, state)
            out.append(state.v)
        return torch.stack(out)

    def parts(self) -> tuple[Tensor, Tensor | None, nn.Module]:
        return self.neuron.recurrent_weights, None, self.neuron.dk["recurrent"].delay

    def rolled(self, x: Tensor) -> Tensor:
        return dk.rollout(self.neuron, x)[1]

    def by_hand(self, x: Tensor, late: Late) -> Tensor:
        """Give the cell its recurrent current along with the input's."""
        lif = pytest.importorskip("norse.torch.functional.lif", reason="wraps Norse models")
        rest, one = torch.zeros(x.shape[1], POST).double(), torch.eye(POST).double()
        out, state = [], lif.LIFState(rest, rest, rest)
        for step in x:
            current = step @ self.neuron.input_weights.detach().T + late(state.z)
            _, state = lif.lif_step(current, state, one, 0 * one, self.neuron.p, self.neuron.dt)
            out.append(state.v)
        return torch.stack(out)


def places(part: nn.Module) -> None:
    """Put the delays where no two are alike and none is a whole number."""
    with torch.no_grad():
        part.delay.copy_(torch.linspace(0.2, 4.8, part.delay.numel()).reshape(part.delay.shape))


def assert_agree(one: list[Tensor], two: list[Tensor]) -> None:
    for mine, true in zip(one, two, strict=True):
        torch.testing.assert_close(mine, true, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("way", ["steps", "rollout"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("library", [Snn, Norse])
def test_a_recurrent_connection_has_one_dropout_a_sequence(library, granularity, way):
    torch.manual_seed(0)
    net, delay = library().double(), DelRec(granularity, max_delay=5, sigma=SIGMA, dropout=DROP)
    dk.wrap_(net, {"neuron.recurrent": delay}, example=X)
    weight, bias, part = net.parts()
    places(part)
    leaves = [weight, part.delay, *([] if bias is None else [bias])]
    for seed in (1, 2):
        late = Late(weight, bias, part.delay, granularity, SIGMA)
        torch.manual_seed(seed)
        late.mask = torch.empty(BATCH, POST, dtype=torch.float64).bernoulli_(1 - DROP) / (1 - DROP)
        wanted = net.by_hand(X, late)
        torch.manual_seed(seed)
        found = net(X) if way == "steps" else net.rolled(X)
        assert_agree([found], [wanted])
        mine, true = (torch.autograd.grad(y.square().sum(), p) for y, p in ((found, leaves), (wanted, late.leaves())))
        if library is Norse:  # its own neurons do not learn to hear themselves
            mine, true = ([(1 - torch.eye(POST)) * g[0], *g[1:]] for g in (mine, true))
        assert_agree(mine, true)
        assert all(bool(g.any()) for g in true)


class Before(nn.Module):
    """A Linear before a whole sequence at once, or before each step."""

    def __init__(self, whole: bool) -> None:
        super().__init__()
        snn = pytest.importorskip("snntorch", reason="wraps snnTorch models")
        self.fc, self.lif, self.whole = nn.Linear(PRE, POST), snn.Leaky(0.9, threshold=99.0), whole

    def forward(self, x: Tensor) -> Tensor:
        mem, out = self.lif.init_leaky(), []
        for current in self.fc(x) if self.whole else x:
            _, mem = self.lif(current if self.whole else self.fc(current), mem)
            out.append(mem)
        return torch.stack(out)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_a_feed_forward_connection_has_one_dropout_a_sequence(granularity, whole):
    torch.manual_seed(0)
    net, delay = Before(whole).double(), DelRec(granularity, max_delay=5, sigma=SIGMA, dropout=DROP)
    dk.wrap_(net, {"fc": dk.At(delay, time_dim=0) if whole else delay}, example=X)
    part = net.fc.dk.delay
    places(part)
    late, mem, wanted = Late(net.fc.weight, net.fc.bias, part.delay, granularity, SIGMA), 0.0, []
    torch.manual_seed(1)
    late.mask = torch.empty(BATCH, POST, dtype=torch.float64).bernoulli_(1 - DROP) / (1 - DROP)
    for x in X:
        mem = 0.9 * mem + late(x)
        wanted.append(mem)
    torch.manual_seed(1)
    found, wanted = net(X), torch.stack(wanted)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-7)  # the neuron's decay is a number of float32
    leaves = [net.fc.weight, part.delay, net.fc.bias]
    mine, true = (torch.autograd.grad(y.sum(), p) for y, p in ((found, leaves), (wanted, late.leaves())))
    for one, two in zip(mine, true, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-6)


def stepped(policy: str, granularity: str):
    """Return a connection in front of a neuron, and its step, which takes and returns a state."""
    torch.manual_seed(0)
    delay = DelRec(granularity, max_delay=5, sigma=SIGMA, rho=RHO)
    if policy == "carried":
        norse = pytest.importorskip("norse.torch", reason="wraps Norse models")
        net = norse.SequentialState(nn.Linear(PRE, POST), norse.LICell()).double()
        return dk.wrap_(net, {"0": delay}, example=lambda: net(X[0], None)), lambda x, state: net(x, state)[1]
    snn = pytest.importorskip("snntorch", reason="wraps snnTorch models")
    net = nn.Sequential(nn.Linear(PRE, POST), snn.Leaky(0.9, init_hidden=True, threshold=99.0)).double()
    dk.wrap_(net, {"0": dk.At(delay, reset=policy)}, example=X[0])
    net[1].reset_mem()

    def step(x, state):
        net(x)

    return net, step


@pytest.mark.parametrize(
    ("change", "gradients"), [("advance", False), ("discretized", False), ("advance", True)]
)  # a block that rounds in place ends every graph
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("policy", ["auto", "manual", "carried"])
def test_a_spread_that_changes_counts_from_the_step_of_the_change(policy, granularity, change, gradients):
    net, step = stepped(policy, granularity)
    seen, state, fc = [], None, net[0]
    fc.register_forward_hook(lambda *call: seen.append(call[2] if isinstance(call[2], Tensor) else call[2][0]))
    places(fc.dk.delay)
    late, wanted = Late(fc.weight, fc.bias, fc.dk.delay.delay, granularity, SIGMA), []
    with torch.set_grad_enabled(gradients), contextlib.ExitStack() as block:
        for t, x in enumerate(X):
            if t in (AT, END):
                dk.detach(net)
                state = None if state is None else tree_map(lambda v: v.detach(), state)
                late.cut()
            if t == AT and change == "advance":
                dk.advance_(net, 0.5)
                late.sigma = SIGMA * RHO**50
            elif t == AT:
                block.enter_context(dk.discretized(net))
                late.rounded = True
            elif t == END:
                block.close()
                late.rounded = False
            state = step(x, state)
            wanted.append(late(x))
    assert_agree([y.detach() for y in seen], [y.detach() for y in wanted])
    if gradients:
        leaves = [fc.weight, fc.dk.delay.delay, fc.bias]
        each = ((seen, leaves), (wanted, late.leaves()))
        assert_agree(*(torch.autograd.grad(torch.stack(y).square().sum(), p) for y, p in each))


@pytest.mark.parametrize("policy", ["auto", "manual", "carried"])
def test_a_spread_that_changes_within_a_graph_is_refused(policy):
    net, step = stepped(policy, "axonal")
    state = None
    for x in X[:AT]:
        state = step(x.clone().requires_grad_(), state)
    dk.advance_(net, 0.5)
    with pytest.raises(dk.HistoryError, match="changed"):
        step(X[AT], state)
