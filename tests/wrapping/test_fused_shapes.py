"""``dk.fused`` on models in the shapes that people write: the result and all gradients are those of their own loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import snntorch as snn
import torch
from fused_cases import (
    BATCH,
    EVERYWHERE,
    HIDDEN,
    OUT,
    PRE,
    TIME,
    TwoLayers,
    ahead_in,
    assert_equal_runs,
    leaky,
    loud,
    spikes,
)
from torch import Tensor, nn

import delaykit as dk
from delaykit.testing.nets.reference import surrogate_spike


class Dictionary(TwoLayers):
    """Keyword arguments, a dict of outputs with None in it, and states that may be None."""

    def forward(self, x: Tensor, *, states: Any = None, gain: float = 1.0) -> dict[str, Any]:
        mem1, mem2 = states or (self.lif1.reset_mem(), self.lif2.reset_mem())
        rec: dict[str, list[Tensor]] = {"spk": [], "mem": []}
        for step in x * gain:
            spk1, mem1 = self.lif1(self.fc1(step), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            rec["spk"].append(spk2)
            rec["mem"].append(mem2)
        return {key: torch.stack(value) for key, value in rec.items()} | {"loss": None, "states": (mem1, mem2)}


class Lists(nn.Module):
    """Lists of layers and of recorded membranes."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [PRE, HIDDEN, HIDDEN, OUT]
        self.fcs = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False))
        self.lifs = nn.ModuleList(leaky(0.6 + 0.1 * k, learn_beta=True, learn_threshold=True) for k in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        mems = [lif.reset_mem() for lif in self.lifs]
        rec: list[list[Tensor]] = [[] for _ in self.lifs]
        for step in x:
            for k, (fc, lif) in enumerate(zip(self.fcs, self.lifs, strict=True)):
                step, mems[k] = lif(fc(step), mems[k])
                rec[k].append(mems[k])
        return step, [torch.stack(r) for r in rec]


class Written(TwoLayers):
    """Results are written into tensors that were made before the loop."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        spk_rec = torch.zeros(len(x), x.shape[1], OUT, dtype=x.dtype)
        total = torch.zeros(x.shape[1], OUT, dtype=x.dtype)
        for t in range(len(x)):
            spk1, mem1 = self.lif1(self.fc1(x[t]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spk_rec[t] = spk2
            total += mem2
        return spk_rec, total


class While(TwoLayers):
    """A while loop that counts by itself, and ends early on what it sees."""

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        t, total = 0, 0
        while t < x.size(0) and (t < 3 or not bool(mem2.max() > 1.8)):
            spk1, mem1 = self.lif1(self.fc1(x[t]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            total, t = total + spk2 + mem2, t + 1
        return total


class Blocks(nn.Module):
    """Layers within modules within modules; one neuron's parameters are another's."""

    class Block(nn.Module):
        def __init__(self, pre: int, post: int) -> None:
            super().__init__()
            self.fc, self.act = nn.Linear(pre, post), nn.Dropout(0.0)
            self.lif = leaky(learn_threshold=True)

        def forward(self, x: Tensor, mem: Tensor) -> tuple[Tensor, Tensor]:
            return self.lif(self.act(self.fc(x)), mem)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = self.Block(PRE, HIDDEN), self.Block(HIDDEN, HIDDEN)
        self.second.lif.threshold = self.first.lif.threshold
        self.second.fc.bias = self.first.fc.bias
        self.head = nn.Linear(HIDDEN, OUT)

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2 = self.first.lif.reset_mem(), self.second.lif.reset_mem()
        rec = []
        for step in x:
            spk1, mem1 = self.first(step, mem1)
            spk2, mem2 = self.second(spk1, mem2)
            rec.append(self.head(spk2 + spk1))
        return torch.stack(rec).mean(0)


class Transposed(TwoLayers):
    """Batch first with channels last; the input is turned and normalised before the loop."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(PRE)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.norm(x.permute(1, 0, 2)))[1].permute(1, 0, 2)


class WholeFirst(TwoLayers):
    """The first Linear takes the whole sequence at once, outside of the loop."""

    def forward(self, x: Tensor) -> Tensor:
        currents = self.fc1(x)
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        rec = []
        for current in currents.unbind(0):
            spk1, mem1 = self.lif1(current, mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            rec.append(spk2 + mem2)
        return torch.stack(rec)


class Functional(TwoLayers):
    """Weights used by functions, a mask on one of them, a bias of the model's own."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", (torch.arange(HIDDEN * OUT).view(OUT, HIDDEN) % 3 > 0).double())
        self.own = nn.Parameter(torch.full((OUT,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        rec = []
        for step in x:
            spk1, mem1 = self.lif1(self.fc1(step), mem1)
            current = nn.functional.linear(spk1, self.fc2.weight * self.mask, self.own)
            spk2, mem2 = self.lif2(current, mem2)
            rec.append(spk2 + mem2)
        return torch.stack(rec)


class Double(TwoLayers):
    """Two populations, excitatory and inhibitory, that hear the same input and drive one readout."""

    def __init__(self) -> None:
        super().__init__()
        self.fc3, self.lif3 = nn.Linear(PRE, HIDDEN), leaky(0.5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mem1, mem2, mem3 = (lif.reset_mem() for lif in (self.lif1, self.lif2, self.lif3))
        rec = []
        for step in x:
            on, mem1 = self.lif1(self.fc1(step), mem1)
            off, mem3 = self.lif3(self.fc3(step), mem3)
            spk2, mem2 = self.lif2(self.fc2(on - off) if len(rec) < 100 else on, mem2)
            rec.append(spk2 + mem2)
        return torch.stack(rec), mem3


class EditsItsInput(TwoLayers):
    def forward(self, x: Tensor) -> Any:
        x = x.detach()
        x *= 0.5
        return super().forward(x)


SHAPES: dict[str, tuple[Callable[[], nn.Module], set[str] | None]] = {
    "Dictionary": (Dictionary, EVERYWHERE),
    "Lists": (Lists, {f"{kind}.{k}" for kind in ("fcs", "lifs") for k in range(3)}),
    "Written": (Written, EVERYWHERE),
    "While": (While, EVERYWHERE),
    "Blocks": (Blocks, {"first.fc", "first.act", "first.lif", "second.fc", "second.act", "second.lif", "head"}),
    "Transposed": (Transposed, EVERYWHERE),
    "WholeFirst": (WholeFirst, {"lif1", "fc2", "lif2"}),
    "Functional": (Functional, {"fc1", "lif1", "lif2"}),
    "Double": (Double, EVERYWHERE | {"fc3", "lif3"}),
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(11)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_shapes_that_people_write(name: str, wrapped: bool) -> None:
    make, expected = SHAPES[name]
    net, first = loud(make()), spikes(BATCH, TIME) if name == "Transposed" else spikes()
    if wrapped:
        rule = {"Lists": "fcs.*", "Blocks": "*.fc", "WholeFirst": "fc2", "Functional": "fc1"}.get(name, "fc*")
        dk.wrap_(net, {rule: dk.FreeDelay("axonal", max_delay=4)}, example=first)
    fast = dk.fused(net, example=first)
    for x in (first, spikes(TIME + 3, 2), spikes(TIME, 1), first):
        assert_equal_runs(net, fast, net, x)
    assert ahead_in(fast) == expected, str(fast)


def test_named_arguments_and_states_that_are_given() -> None:
    net = loud(Dictionary())
    fast = dk.fused(net, example=spikes())
    state = tuple(torch.rand(BATCH, n, dtype=torch.float64).requires_grad_() for n in (HIDDEN, OUT))
    for given in ({"gain": 2.0}, {"states": state}, {"states": state, "gain": 0.5}):
        x = spikes()
        assert_equal_runs(net, lambda x, g=given: fast(x, **g), lambda x, g=given: net(x, **g), x)
        for one, two in zip(
            torch.autograd.grad(fast(x, states=state)["mem"].sum(), state),
            torch.autograd.grad(net(x, states=state)["mem"].sum(), state),
            strict=True,
        ):
            torch.testing.assert_close(one, two, rtol=0, atol=1e-10)
    assert ahead_in(fast) == EVERYWHERE


def test_an_input_that_is_edited_is_edited_once() -> None:
    net, x = loud(EditsItsInput()), spikes()
    for _ in range(2):
        given = [x.detach().clone(), x.detach().clone()]
        fast = dk.fused(net, example=given[0].clone())
        for one, two in zip(fast(given[0]), net(given[1]), strict=True):
            torch.testing.assert_close(one, two, rtol=0, atol=1e-12)
        assert torch.equal(*given) and torch.equal(given[0], x * 0.5)


class Steps(nn.Module):
    """A model that is called once a step, and uses one Linear twice."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.lif = nn.Linear(PRE, PRE), leaky(init_hidden=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lif(self.shared(self.shared(x)))


def test_a_step_that_uses_a_layer_twice_is_a_step() -> None:
    net = loud(Steps())
    fast = dk.fused(net, example=spikes())
    assert fast.loop == "outside" and fast(spikes()).shape == (TIME, BATCH, PRE)

    def by_hand(x: Tensor) -> Tensor:
        net.lif.reset_mem()
        return torch.stack([net(step) for step in x])

    assert_equal_runs(net, fast, by_hand, spikes())


class ManyStates(nn.Module):
    def __init__(self, cell: Any) -> None:
        super().__init__()
        self.fc, self.one, self.two = nn.Linear(PRE, HIDDEN), cell(), cell()

    def forward(self, x: Tensor, s1: Any = None, s2: Any = None) -> Any:
        z, s1 = self.one(self.fc(x), s1)
        z, s2 = self.two(z, s2)
        return z, s1, s2


class OneState(ManyStates):
    def forward(self, x: Tensor, hidden: Any = None) -> Any:  # type: ignore[override]
        one, two = hidden or (None, None)
        z, one, two = super().forward(x, one, two)
        return z, (one, two)


def test_steps_of_norse_that_take_their_states() -> None:
    norse = pytest.importorskip("norse.torch", reason="steps norse cells")
    with pytest.raises(dk.ConfigError, match="s1, s2"):
        dk.fused(ManyStates(norse.LIFCell), example=spikes().detach().float())
    net = loud(OneState(norse.LIFCell))
    with torch.no_grad():
        net.fc.weight.mul_(8)
    fast = dk.fused(net, example=spikes())

    def by_hand(x: Tensor) -> Any:
        state, rec = None, []
        for step in x:
            out, state = net(step, state)
            rec.append(out)
        return torch.stack(rec), state

    assert_equal_runs(net, fast, by_hand, spikes())
    assert ahead_in(fast) == {"fc", "one", "two"}


@pytest.mark.parametrize("kind", ["Alpha", "Lapicque"])
def test_neurons_without_equations_say_so(kind: str) -> None:
    net = loud(TwoLayers())
    net.lif1 = {
        "Alpha": lambda: snn.Alpha(alpha=0.8, beta=0.6, threshold=0.1, spike_grad=surrogate_spike),
        "Lapicque": lambda: snn.Lapicque(beta=0.8, threshold=0.5, spike_grad=surrogate_spike),
    }[kind]()
    net.double()

    class Loop(TwoLayers):
        def forward(self, x: Tensor) -> Any:
            states, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
            states = states if isinstance(states, tuple) else (states,)
            rec = []
            for step in x:
                spk1, *states = self.lif1(self.fc1(step), *states)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                rec.append(spk2 + mem2)
            return torch.stack(rec)

    net.__class__ = Loop
    fast = dk.fused(net, example=spikes())
    assert_equal_runs(net, fast, net, spikes())
    assert "step by step only" in fast.report()["lif1"] and "lif1" in fast.report()["fc2"]


def test_a_batch_size_that_a_model_writes_down_costs_one_proof_more() -> None:
    class Reshaped(TwoLayers):
        def between(self, t: int, spk: Tensor) -> Tensor:
            return spk.reshape(self.size, HIDDEN) + torch.ones(self.size, 1, dtype=spk.dtype)

        def forward(self, x: Tensor) -> Any:
            self.size = x.shape[1]
            return super().forward(x)

    net = loud(Reshaped())
    fast = dk.fused(net, example=spikes())
    for size in (2, 2, 3, 1, 1):
        assert_equal_runs(net, fast, net, spikes(TIME, size))
    assert ahead_in(fast) == EVERYWHERE, str(fast)
    assert_equal_runs(net, fast, net, spikes())
    assert ahead_in(fast) == EVERYWHERE, str(fast)
