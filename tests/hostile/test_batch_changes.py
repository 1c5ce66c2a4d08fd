"""Rows that leave or come within one run: packed sequences, batches of another size."""

from __future__ import annotations

import pytest
import torch
from rigs import Loop, arrivals, currents, exact_or_refused, late, looped, outer, snn, spikes, stepped

import delaykit as dk

LENGTHS = [2, 2, 2, 1, 1, 1]
KINDS = ["layer", "axonal", "dendritic", "synaptic"]


def packed(net, x, lengths=LENGTHS):
    """Run a packed batch: row 1 ends after step 2, its input and its state are cut off."""
    cut = [x[t, :n] for t, n in enumerate(lengths)]
    with currents(net.fc) as seen:
        net(cut, lambda _, t, mem: mem[: lengths[t]] if mem.numel() else mem)
    return seen


@pytest.mark.parametrize("kind", KINDS)
def test_rows_dropped_from_the_end_leave_the_others_alone(kind):
    """Spike of row 0 at t 1, delay 3: a current of 1 at t 4, though row 1 has left at t 3."""
    assert arrivals(packed(looped(3, kind), spikes(6, 1, batch=2))) == {4: 1.0}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_dropped_one_after_the_other(kind):
    lengths = [3, 3, 2, 2, 1, 1]
    seen = packed(looped(3, kind, batch=3), spikes(6, (0, 0), (0, 1), (1, 0), batch=3), lengths)
    assert arrivals(seen) == {3: 1.0, 4: 1.0} and arrivals(seen, 1) == {3: 1.0}


def test_gradients_of_a_batch_that_shrinks():
    """The delay's and the weight's gradient equal those of the same rows run alone."""
    x = spikes(6, (1, 0), (0, 1), batch=2)
    whole, alone = looped(2), looped(2)
    with torch.no_grad():
        whole.fc.weight.fill_(0.7), alone.fc.weight.fill_(0.7)
    mems = []
    whole([x[t, :n] for t, n in enumerate(LENGTHS)], lambda _, t, mem: mems.append(mem) or mem[: LENGTHS[t]])
    out = whole([x[t, :n] for t, n in enumerate(LENGTHS)], lambda _, t, mem: mem[: LENGTHS[t]])
    sum(m[0].sum() for m in out).backward()
    sum(m[0].sum() for m in alone(x[:, :1])).backward()
    for one, two in zip(whole.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)


def test_a_batch_that_grows_is_refused_or_begins_with_nothing_under_way():
    """New rows begin with an empty line; old rows keep theirs."""
    net, x = looped(3), spikes(6, 0, batch=2)
    grown = [1, 1, 2, 2, 2, 2]

    def between(_, t, mem):
        return torch.cat([mem, torch.zeros(grown[t] - len(mem), 1)]) if mem.numel() else mem

    with exact_or_refused(), currents(net.fc) as seen:
        net([x[t, :n] for t, n in enumerate(grown)], between)
        assert arrivals(seen) == {3: 1.0} and arrivals(seen, 1) == {}


def test_an_input_cut_without_its_state_is_refused():
    """Nobody says which row went: rows are dropped from the end only where the state is cut so."""
    net, x = looped(3), spikes(6, (1, 1), batch=2)
    with exact_or_refused(), currents(net.fc) as seen:
        net([x[t, 2 - n :] for t, n in enumerate(LENGTHS)], lambda _, t, mem: mem[2 - LENGTHS[t] :])
        assert arrivals(seen) == {4: 1.0}  # row 0 was cut: what was row 1 is row 0 now


def test_first_rows_dropped_are_refused_or_move():
    net, x = looped(3), spikes(6, (1, 1), batch=2)
    with exact_or_refused(), currents(net.fc) as seen:
        net([x[t, -n:] for t, n in enumerate(LENGTHS)], lambda _, t, mem: mem[-LENGTHS[t] :] if mem.numel() else mem)
        assert arrivals(seen) == {4: 1.0}


def test_outer_loop_whose_hidden_state_is_cut():
    """The same where the loop is outside and the neuron keeps its membrane: ``lif.mem = lif.mem[:n]``."""
    net, x = outer(3), spikes(6, 1, batch=2)

    def between(net, t):
        net[1].mem = net[1].mem[: LENGTHS[t]] if net[1].mem.numel() else net[1].mem

    seen = stepped(net, [x[t, :n] for t, n in enumerate(LENGTHS)], between)
    assert arrivals(seen) == {4: 1.0}


def test_outer_loop_of_another_batch_size_without_a_reset():
    """The neuron begins with zeros of its own accord; the spike of the old row 0 must not reach the new row 0."""
    net, x = outer(3), spikes(6, 1, batch=2)
    with exact_or_refused():
        seen = stepped(net, [x[t, :n] for t, n in enumerate(LENGTHS)])
        assert arrivals(seen) == {}


def test_another_batch_size_after_a_reset_is_another_sequence():
    for net in (looped(3), None):
        for batch in (2, 1, 3):
            if net is not None:
                with currents(net.fc) as seen:
                    net(spikes(6, 1, batch=batch))
            else:
                seen = stepped(outer(3), spikes(6, 1, batch=batch))
            assert arrivals(seen) == {4: 1.0}


def test_norse_sequential_state_shrinks():
    """Norse: input and state cut together, by tree_map over tensors."""
    norse = pytest.importorskip("norse.torch", reason="wraps norse models")
    from rigs import ones
    from torch.utils._pytree import tree_map

    net = norse.SequentialState(ones(), norse.LICell())
    dk.wrap_(net, {"0": late(3)}, example=lambda: [net(torch.zeros(2, 1), None), None])
    x, state = spikes(6, 1, batch=2), None
    with exact_or_refused(), currents(net[0]) as seen:
        for t, n in enumerate(LENGTHS):
            if state is not None and n < LENGTHS[t - 1]:
                state = tree_map(lambda v, n=n: v[:n], state)
            _, state = net(x[t, :n], state)
        assert arrivals(seen) == {4: 1.0}


@pytest.mark.parametrize("slot", ["input", "recurrent"])
def test_norse_cell_shrinks(slot):
    norse = pytest.importorskip("norse.torch", reason="wraps norse models")
    from torch.utils._pytree import tree_map

    def run(net, lengths):
        state, out = None, []
        for t, n in enumerate(lengths):
            if state is not None and n < len(state.v):
                state = tree_map(lambda v, n=n: v[:n], state)
            z, state = net(x[t, :n], state)
            out.append(z[0])
        return torch.stack(out), state.v[0]

    torch.manual_seed(0)
    net, x = norse.LIFRecurrentCell(3, 4), 5 * (torch.rand(12, 2, 3) < 0.5).float()
    with torch.no_grad():
        net.input_weights.abs_().mul_(4), net.recurrent_weights.mul_(3)
    dk.wrap_(net, {slot: late(3)}, example=lambda: run(net, [2] * 12))
    want = run(net, [1] * 12)
    assert bool(want[0].any())
    with exact_or_refused():
        for one, two in zip(run(net, [2] * 6 + [1] * 6), want, strict=True):
            torch.testing.assert_close(one, two)


def test_recurrent_neuron_shrinks():
    """The history of a neuron's own connection loses the same rows."""

    class Recurrent(Loop):
        def __init__(self):
            super().__init__(2, 2)
            self.lif = snn.RLeaky(0.9, linear_features=2, threshold=0.5)
            with torch.no_grad():
                self.lif.recurrent.weight.fill_(0.2), self.lif.recurrent.bias.zero_()

        def forward(self, x, lengths):
            (spk, mem), out = self.lif.reset_mem(), []
            for t, n in enumerate(lengths):
                spk, mem = (spk[:n], mem[:n]) if mem.numel() else (spk, mem)
                spk, mem = self.lif(self.fc(x[t, :n]), spk, mem)
                out.append(mem[0])
            return torch.stack(out)

    x = (torch.rand(8, 2, 2, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    net = Recurrent()
    dk.wrap_(net, {"lif.recurrent": late(2)}, example=(x, [2] * 8))
    want = net(x, [1] * 8)
    with torch.no_grad(), dk.disabled(net):
        assert not torch.equal(want, net(x, [1] * 8))  # the delay shows
    torch.testing.assert_close(net(x, [2] * 4 + [1] * 4), want)


def test_rows_dropped_where_one_that_leaves_looks_like_one_that_stays():
    """``mem[[0]]`` of two equal rows: either may have stayed; a slice says which."""
    for cut, fits in ((lambda mem: mem[[0]], False), (lambda mem: mem[:1], True)):

        class Cut(Loop):
            def forward(self, x, cut=cut, early=False):
                mem = torch.zeros(2, 1)
                for t in range(len(x)):
                    if early and t == 2:
                        x, mem = x[:, :1], cut(mem)
                    _, mem = self.lif(self.fc(x[t]), mem)

        net = Cut()
        dk.wrap_(net, {"fc": late(3)}, example=torch.zeros(6, 2, 1))
        x = spikes(6, (1, 0, 0), batch=2)
        if fits:
            with currents(net.fc) as seen:
                net(x, early=True)
            assert arrivals(seen) == {4: 1.0}
        else:
            with pytest.raises(dk.HistoryError, match="slice"):
                net(x, early=True)
