"""What empties a line where the loop is outside: events, not values; and what a changed membrane means."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rigs import arrivals, currents, exact_or_refused, late, leaky, looped, ones, outer, snn, spikes, stepped
from snntorch import utils
from torch import nn

import delaykit as dk

X = spikes(8, 1, batch=2)  # row 0 at t 1, delay 3: current at t 4


def at(time, change):
    """Apply a change to the neuron before one step."""

    def between(net, t):
        if t == time:
            change(net[1])

    return between


def every(change):
    def between(net, t):
        if t:
            change(net[1])

    return between


def replaced(make):
    def change(lif):
        lif.mem = make(lif.mem)

    return change


def in_place(edit):
    def change(lif):
        with torch.no_grad():
            edit(lif.mem.detach() if lif.mem.requires_grad else lif.mem)

    return change


EDITS = {
    "clamp": replaced(lambda m: m.clamp(-1, 1)),
    "noise": replaced(lambda m: m + 0.01),
    "scaled": replaced(lambda m: m * 0.5),
    "detached clone": replaced(lambda m: m.detach().clone()),
    "clone": replaced(lambda m: m.clone()),
    "detached": replaced(lambda m: m.detach()),
    "to the same device and back": replaced(lambda m: m.double().float()),
    "added to in place": in_place(lambda m: m.add_(0.01)),
    "clamped in place": in_place(lambda m: m.clamp_(-1, 1)),
    "data replaced": lambda lif: setattr(lif.mem, "data", lif.mem.data.clone()),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_membrane_leaves_spikes_under_way(edit):
    assert arrivals(stepped(outer(3), X, every(EDITS[edit]))) == {4: 1.0}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_membrane_leaves_the_first_spikes_too(edit):
    """Also where the membrane is zero everywhere, since nothing has arrived yet."""
    assert arrivals(stepped(outer(2), spikes(5, 0, batch=2), at(1, EDITS[edit]))) == {2: 1.0}


RESETS = {
    "reset_mem": lambda lif: lif.reset_mem(),
    "reset_hidden": lambda lif: type(lif).reset_hidden(),
    "utils.reset": lambda lif: utils.reset(nn.Sequential(lif)),
    "an empty placeholder": replaced(lambda m: torch.zeros(0)),
}


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("time", [1, 2, 4], ids=["membrane zero", "spike under way", "as it arrives"])
def test_the_librarys_own_reset_empties_the_line(reset, time):
    """Whatever the membrane was: at t 1 it is zero, and zeros replace it."""
    x = spikes(8, 0, (6, 0), batch=2)
    assert arrivals(stepped(outer(4), x, at(time, RESETS[reset]))) == {}


def test_dk_reset_empties_the_line_and_leaves_the_membrane():
    net = outer(3)
    seen = stepped(net, X, lambda net, t: dk.reset(net) if t == 3 else None)
    assert arrivals(seen) == {}


def test_a_membrane_of_zeros_where_some_value_was_not_is_a_reset():
    x = spikes(8, 0, 2, batch=2)  # arrives at 3, so the membrane is not zero at t 4; the second would arrive at 5
    assert arrivals(stepped(outer(3), x, at(4, replaced(torch.zeros_like)))) == {3: 1.0}
    assert arrivals(stepped(outer(3), x, at(4, in_place(lambda m: m.zero_())))) == {3: 1.0}


ROWS = {
    "in place": in_place(lambda m: m[0].zero_()),
    "replaced": replaced(lambda m: torch.stack([torch.zeros_like(m[0]), m[1]])),
    "masked": replaced(lambda m: m * torch.tensor([[0.0], [1.0]])),
    "where": replaced(lambda m: torch.where(torch.tensor([[True], [False]]), torch.zeros_like(m), m)),
}


@pytest.mark.parametrize("way", ROWS)
def test_rows_set_to_zero_are_reset(way):
    """Row 0 is zeroed at t 4, row 1 keeps its membrane: row 0 loses its spike under way, row 1 does not."""
    x = spikes(8, (0, 0), (0, 1), (2, 0), (2, 1), batch=2)
    seen = stepped(outer(3), x, at(4, ROWS[way]))
    assert arrivals(seen) == {3: 1.0} and arrivals(seen, 1) == {3: 1.0, 5: 1.0}


@pytest.mark.parametrize("made", [torch.tensor, np.array, list])
def test_rows_reset_by_name(made):
    """``dk.reset(net, rows=mask)`` empties the lines of some rows, whatever their membranes are."""
    x = spikes(8, (1, 0), (1, 1), batch=2)
    net = outer(3)
    seen = stepped(net, x, lambda net, t: dk.reset(net, rows=made([True, False])) if t == 3 else None)
    assert arrivals(seen) == {} and arrivals(seen, 1) == {4: 1.0}


def test_rows_reset_by_name_in_a_loop_inside():
    x = spikes(8, (1, 0), (1, 1), batch=2)
    net = looped(3)

    def between(net_, t, mem):
        if t == 3:
            dk.reset(net, rows=torch.tensor([True, False]))
        return mem

    with currents(net.fc) as seen:
        net(x, between)
    assert arrivals(seen) == {} and arrivals(seen, 1) == {4: 1.0}


def test_a_mask_that_does_not_fit_is_refused():
    net = outer(3)
    stepped(net, X)
    for rows in (torch.tensor([True]), torch.tensor([0, 1]), torch.ones(2, 1, dtype=torch.bool), [1, 0], 3, np.ones(2)):
        with pytest.raises(dk.DelaykitError, match="rows"):
            dk.reset(net, rows=rows)


def test_a_row_set_to_zero_while_others_change_is_refused():
    """Two readings: row 0 was reset, or all of it was edited. Nobody can tell, so it says so."""
    x = spikes(8, (0, 0), (0, 1), (2, 0), (2, 1), batch=2)

    def change(lif):
        lif.mem = lif.mem * torch.tensor([[0.0], [0.5]])

    with pytest.raises(dk.HistoryError, match=r"dk\.reset\(net, rows=.*manual|manual.*rows="):
        stepped(outer(3), x, at(4, change))


def test_the_same_without_spikes_under_way_is_no_fault():
    x = spikes(12, (0, 0), (0, 1), batch=2)

    def change(lif):
        lif.mem = lif.mem * torch.tensor([[0.0], [0.5]])

    assert arrivals(stepped(outer(3), x, at(10, change))) == {3: 1.0}


def test_rows_that_change_places_are_refused_or_move():
    x = spikes(8, (0, 0), (2, 0), batch=2)
    with exact_or_refused():
        seen = stepped(outer(3), x, at(4, replaced(lambda m: m[[1, 0]])))
        assert arrivals(seen) == {3: 1.0} and arrivals(seen, 1) == {5: 1.0}


def test_an_older_membrane_put_back_does_not_rewind_the_line():
    kept = {}

    def between(net, t):
        if t == 2:
            kept["mem"] = net[1].mem.clone()
        if t == 3:
            net[1].mem = kept["mem"]

    assert arrivals(stepped(outer(3), X, between)) == {4: 1.0}


@pytest.mark.parametrize("kind", ["layer", "axonal", "dendritic", "synaptic"])
@pytest.mark.parametrize("edit", ["clamp", "detached clone", "added to in place"])
def test_every_granularity_keeps_its_spikes(edit, kind):
    assert arrivals(stepped(outer(3, kind), X, every(EDITS[edit]))) == {4: 1.0}


def test_a_detached_clone_cuts_the_gradient():
    """Truncated BPTT by hand: two backward passes, the second ends at the cut; the spike under way arrives."""
    net = outer(3)
    net[1].reset_mem()
    for t in range(3):
        out = net(X[t])
    (net[1].mem.sum() + 0 * out.sum()).backward()
    net[1].mem = net[1].mem.detach().clone()
    for t in range(3, 6):
        net(X[t])
    net[1].mem.sum().backward()
    assert float(net[1].mem.detach()[0]) == pytest.approx(0.9)


def test_explicit_states_between_steps_of_a_loop_inside():
    """Root: edits of the membrane are nobody's business but the neuron's."""
    for edit in (lambda m: m.clamp(-1, 1), lambda m: m + 0.01, lambda m: m.detach().clone()):
        net = looped(3)
        with currents(net.fc) as seen:
            net(X, lambda _, t, mem, edit=edit: edit(mem) if t else mem)
        assert arrivals(seen) == {4: 1.0}


def test_zeros_handed_over_in_a_loop_inside_have_two_readings():
    """A new window or an edit: refused where spikes are under way, and where none are it makes no difference."""
    net, x = looped(3), spikes(9, 0, 2, batch=2)  # arrive at 3 and 5
    with pytest.raises(dk.HistoryError, match=r"dk\.reset\(net\)"):
        net(x, lambda _, t, mem: torch.zeros_like(mem) if t == 4 else mem)
    with currents(net.fc) as seen:
        net(x, lambda _, t, mem: torch.zeros_like(mem) if t == 7 else mem)
    assert arrivals(seen) == {3: 1.0, 5: 1.0}


@pytest.mark.parametrize("name", ["Synaptic", "Alpha", "RLeaky", "Lapicque", "RSynaptic"])
def test_other_neurons_with_a_hidden_membrane(name):
    options = {
        "Synaptic": {"alpha": 0.5, "beta": 0.9},
        "Alpha": {"alpha": 0.5, "beta": 0.4},
        "RLeaky": {"beta": 0.9, "all_to_all": False, "V": 0.0},
        "Lapicque": {"beta": 0.9},
        "RSynaptic": {"alpha": 0.5, "beta": 0.9, "all_to_all": False, "V": 0.0},
    }[name]
    net = nn.Sequential(ones(), getattr(snn, name)(threshold=1e9, init_hidden=True, **options))
    dk.wrap_(net, {"0": late(3)}, example=torch.zeros(2, 1))
    assert arrivals(stepped(net, X, every(replaced(lambda m: m.clamp(-1, 1))))) == {4: 1.0}
    assert arrivals(stepped(net, X, at(3, lambda lif: lif.reset_mem()))) == {}


def test_a_recurrent_connection_of_its_own():
    """``RLeaky.recurrent``: its line too is emptied by events, not by an edit."""

    def build():
        lif = snn.RLeaky(0.9, linear_features=1, threshold=0.5, init_hidden=True)
        nn.init.ones_(lif.recurrent.weight), nn.init.zeros_(lif.recurrent.bias)
        net = nn.Sequential(ones(), lif)
        return dk.wrap_(net, {"1.recurrent": late(2)}, example=torch.zeros(2, 1))

    def run(change):
        net = build()
        net[1].reset_mem()
        with currents(net[1].recurrent) as seen:
            for t in range(5):
                if t == 2:
                    change(net[1])
                net(spikes(5, 0, batch=2)[t])
        return arrivals(seen)

    first = run(lambda lif: None)
    assert 3 in first  # the spike of step 0 comes back after 1 + 2 steps
    assert 3 in run(replaced(lambda m: m + 0.001))
    assert 3 in run(replaced(lambda m: m.detach().clone()))
    assert 3 not in run(lambda lif: lif.reset_mem())


def test_which_events_empty_a_line_is_said():
    """One public view: the plan and the status say it for every line."""
    net = nn.Sequential(ones(), leaky(init_hidden=True))
    plan = dk.plan(net, {"0": late(3)}, example=torch.zeros(2, 1))
    assert "emptied" in str(plan) and "reset_mem" in str(plan), str(plan)
    dk.wrap_(net, plan)
    assert "reset_mem" in str(dk.status(net)) and "dk.reset" in str(dk.status(net)), str(dk.status(net))
    assert "root" in str(dk.status(looped(3))) and "net(...)" in str(dk.status(looped(3)))


def test_rows_written_to_zero_in_a_neuron_with_a_recurrent_connection_of_its_own():
    """``lif.mem.mul_(mask)``: seen by the version, told from an edit by a copy, though no connection follows it."""
    torch.manual_seed(0)
    net = snn.RLeaky(0.5, linear_features=2, threshold=0.1, init_hidden=True, output=True)
    dk.wrap_(net, {"recurrent": late(2)}, example=lambda: net(torch.zeros(2, 2)))

    def run(row, edit=None):
        net.reset_mem()
        x, out = torch.ones(8, 2, 2)[:, row], []
        with torch.no_grad():
            for t, step in enumerate(x):
                if t == 4 and edit is not None:
                    edit()
                out.append(net(step)[1].clone())
        return torch.stack(out)

    def reset_row():
        net.mem.mul_(torch.tensor([[0.0], [1.0]]))
        net.spk = net.spk * torch.tensor([[0.0], [1.0]])

    both, alone = slice(0, 2), slice(0, 1)
    got, plain = run(both, reset_row), run(both)
    torch.testing.assert_close(got[:, 1], plain[:, 1])
    torch.testing.assert_close(got[4:, 0], run(alone)[:4, 0])
    assert not torch.equal(got[4:, 0], plain[4:, 0])
