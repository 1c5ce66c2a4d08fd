"""A Norse state rebuilt by hand at rest: its histories are gone, and nobody is to take it for one that begins."""

from __future__ import annotations

import pytest
import torch
from rigs import exact_or_refused, late, ones, spikes
from torch.utils._pytree import tree_map

import delaykit as dk

norse = pytest.importorskip("norse.torch", reason="wraps norse models")

from norse.torch.functional.lif import LIFFeedForwardState, LIFState  # noqa: E402
from norse.torch.functional.lif_refrac import LIFRefracState  # noqa: E402


def cell(kind=norse.LIFRecurrentCell):
    net = kind(1, 1)
    with torch.no_grad():
        net.input_weights.fill_(1.0), net.recurrent_weights.zero_()
    return dk.wrap_(net, {"input": late(3)}, example=torch.zeros(1, 1))


def looped():
    """A neuron without weights of its own, to which delaykit gives a loop."""
    net = norse.LIFCell(norse.LIFParameters(v_th=torch.tensor(0.01), tau_mem_inv=torch.tensor(1000.0)))
    return dk.wrap_(net, {"": dk.Recurrent(late(3), weight=torch.ones(1, 1))}, example=torch.zeros(1, 1))


REBUILT = {
    "own class": lambda s: type(s)(*s),
    "own class, cloned": lambda s: type(s)(*(v.clone() for v in s)),
    "library class": lambda s: LIFState(z=s.z, v=s.v, i=s.i),
    "library class, cloned": lambda s: LIFState(z=s.z.clone(), v=s.v.clone(), i=s.i.clone()),
    "made": lambda s: s._make(s),
}


@pytest.mark.parametrize("rebuild", REBUILT)
@pytest.mark.parametrize("gradients", [False, True])
def test_one_at_rest_with_spikes_under_way_is_refused(rebuild, gradients):
    """Delay 3: a spike of step 0 arrives at step 3; the state of step 1 is at rest."""
    net, state = cell(), None
    with torch.set_grad_enabled(gradients):
        for x in spikes(2, 0):
            _, state = net(x, state)
        for _ in (0, 1):  # also when it is tried again
            with pytest.raises(dk.HistoryError, match="rebuilt by hand.*None where a sequence begins"):
                net(spikes(1)[0], REBUILT[rebuild](state))
        for x in spikes(2):
            _, state = net(x, state)
        assert float(state.i.detach()) == pytest.approx(0.8)  # the state itself goes on


@pytest.mark.parametrize("rebuild", REBUILT)
def test_with_nothing_under_way_it_is_exact_either_way(rebuild):
    net, state = cell(), None
    with torch.no_grad():
        for x in spikes(2):
            _, state = net(x, state)
        state = REBUILT[rebuild](state)
        for x in spikes(4, 0):
            _, state = net(x, state)
        assert float(state.i) == pytest.approx(0.8)


def test_a_running_one_is_refused():
    net, state = cell(), None
    with torch.no_grad():
        for x in spikes(4, 0):
            _, state = net(x, state)
        for rebuild in REBUILT.values():
            with pytest.raises(dk.HistoryError, match="without its delay history"):
                net(spikes(1)[0], rebuild(state))


def test_one_of_another_stream_is_refused():
    """Two sequences in turns: what was rebuilt is not the newest."""
    net = cell()
    with torch.no_grad():
        _, one = net(spikes(1, 0)[0], None)
        two = None
        for x in spikes(5, 0):
            _, two = net(x, two)
        with pytest.raises(dk.HistoryError, match="rebuilt by hand"):
            net(spikes(1)[0], type(one)(*one))


@pytest.mark.parametrize("rebuild", REBUILT)
@pytest.mark.parametrize("older", [False, True])
def test_two_sequences_in_turns_rebuilt_at_every_step(rebuild, older):
    """Both are at rest with a spike under way, which would be lost in silence; the states themselves are exact."""
    net = cell()
    with torch.no_grad():
        for rebuilt in (True, False):
            states, seen = [None, None], [[], []]
            for t, x in enumerate(spikes(6, 0)):
                for k in (0, 1):
                    if rebuilt and t == 1 and k != older:
                        with pytest.raises(dk.HistoryError, match="rebuilt by hand"):
                            net(x, REBUILT[rebuild](states[k]))
                        continue
                    _, states[k] = net(x * (1 + k), states[k])
                    seen[k].append(round(float(states[k].i), 3))
            if not rebuilt:
                assert seen == [[0.0, 0.0, 0.0, 0.8, 0.64, 0.512], [0.0, 0.0, 0.0, 1.6, 1.28, 1.024]]


def test_sequences_that_went_on_or_had_nothing_under_way_leave_others_free_to_begin_at_rest():
    net = cell()
    with torch.no_grad():
        _, one = net(spikes(1, 0)[0], None)
        _, two = net(spikes(1)[0], None)
        for x in spikes(3):
            _, one = net(x, one)
        assert one.i.any()
        _, three = net(spikes(1, 0)[0], fresh())
        for x in spikes(3):
            _, three = net(x, three)
        assert float(three.i) == pytest.approx(0.8)


def fresh():
    return LIFState(*(torch.zeros(1, 1) for _ in range(3)))


def test_states_at_rest_begin_sequences_where_they_cannot_be_meant_otherwise():
    """Behind a state that is not at rest; behind None; behind dk.reset; where nothing was under way."""
    net = cell()

    def run(first, *at, steps=5):
        state, seen = first, []
        for x in spikes(steps, *at):
            _, state = net(x, state)
            seen.append(round(float(state.i), 3))
        return seen

    with torch.no_grad():
        want = [0.0, 0.0, 0.0, 0.8, 0.64]
        assert run(fresh(), 0, 4) == want == run(fresh(), 0, 4)  # a spike is lost as its sequence is, as in any loop
        run(None, 1, steps=2)
        assert run(None, 0) == want
        run(None, 1, steps=2)
        dk.reset(net)
        assert run(fresh(), 0) == want
        run(None, steps=3)
        assert run(fresh(), 0) == want


def test_nested_states_of_refractory_cells():
    net = cell(norse.LIFRefracRecurrentCell)
    with torch.no_grad():
        _, state = net(spikes(1, 0)[0], None)
        rebuilt = LIFRefracState(lif=LIFState(*state.lif), rho=state.rho)
        with pytest.raises(dk.HistoryError, match="rebuilt by hand"):
            net(spikes(1)[0], rebuilt)


def test_a_loop_that_was_added():
    net = looped()
    with torch.no_grad():
        z, state = net(spikes(1, 0)[0], None)
        assert z.any() and not state.v.any()  # it has fired, and is not at rest: its current lingers
        with pytest.raises(dk.HistoryError):
            net(spikes(1)[0], LIFFeedForwardState(v=state.v, i=state.i))


def joined(kind, quiet_first):
    """Run one sequence with a spike under way and one without, and go on with both in one batch."""
    if kind == "cell":
        net, current = cell(), lambda s: s.i
    else:
        net, current = norse.SequentialState(ones(), norse.LICell()), lambda s: s[1].i
        dk.wrap_(net, {"0": late(3)}, example=lambda: net(torch.zeros(1, 1), None))

    def run(x):
        state = None
        for step in x:
            _, state = net(step, state)
        return state

    with torch.no_grad():
        pair = [run(spikes(6)), run(spikes(6, 0, 5))]
        one, two = pair if quiet_first else pair[::-1]
        if kind == "cell":
            state = one._replace(**{k: torch.cat([getattr(one, k), getattr(two, k)]) for k in one._fields})
        else:
            state = tree_map(lambda a, b: None if a is None else torch.cat([a, b]), one, two)
        seen = [current(state).flatten()]
        for x in spikes(4, batch=2):
            _, state = net(x, state)
            seen.append(current(state).flatten())
    return torch.stack(seen)[:, int(quiet_first)]


@pytest.mark.parametrize("quiet_first", [False, True])
@pytest.mark.parametrize("kind", ["cell", "chain"])
def test_states_of_runs_joined_in_one_batch(kind, quiet_first):
    """The lines of the first come along; those of the second cannot, whatever is in the first."""
    with exact_or_refused():
        seen = joined(kind, quiet_first)
        assert torch.allclose(seen[1:], 0.8 * (seen[:-1] + torch.tensor([0.0, 0.0, 1.0, 0.0])))
        assert kind == "cell" and not quiet_first
