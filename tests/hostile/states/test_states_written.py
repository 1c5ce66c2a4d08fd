"""States that the caller carries, written to in place between steps: the rule of membranes holds for them, too."""

from __future__ import annotations

import pytest
import torch
from rigs import late, ones
from torch import nn

import delaykit as dk

norse = pytest.importorskip("norse.torch", reason="wraps norse models")

TIME, LATE, AT = 12, 3, 6
ROW = torch.tensor([[0.0], [1.0], [1.0]])


def chain(delayed):
    net = norse.SequentialState(ones(3, 3), norse.LICell())
    return dk.wrap_(net, {"0": late(LATE)}, example=lambda: net(torch.zeros(3, 3), None)) if delayed else net


def pair(delayed):
    """A chain whose second line stands before a cell that is wrapped itself."""
    net = norse.SequentialState(ones(3, 3), cell(False))
    rules = {"0": late(LATE), "1.recurrent": late(0)}
    return dk.wrap_(net, rules, example=lambda: net(torch.zeros(3, 3), None)) if delayed else net


def cell(delayed):
    torch.manual_seed(0)
    net = norse.LIFRecurrentCell(3, 4)
    with torch.no_grad():
        net.input_weights.abs_().mul_(4), net.recurrent_weights.mul_(3)
    return dk.wrap_(net, {"input": late(LATE)}, example=lambda: net(torch.zeros(3, 3))) if delayed else net


NETS = {"chain": chain, "pair": pair, "cell": cell}


def data():
    return 1.0 + 4 * (torch.rand(TIME, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.5).float()


def neuron(state):
    return state[1] if isinstance(state, list) else state


def zero_row(state):
    for value in neuron(state):
        value[0] = 0.0


def zero_all(state):
    for value in neuron(state):
        value.zero_()


def times_mask(state):
    for value in neuron(state):
        value.mul_(ROW)


def noise(state):
    neuron(state).v.add_(0.25)


def masked_voltage(state):
    neuron(state).v.mul_(ROW)  # its current goes on, so the row is not at zero: an edit


def swapped(state):
    for value in neuron(state):
        value.copy_(value[[1, 0, 2]])


def copied_over(state):
    for value in neuron(state):
        value.copy_(value.clone())


EMPTIED = {zero_row: [0], times_mask: [0], zero_all: [0, 1, 2], noise: [], masked_voltage: [], copied_over: []}


def reference(build, edit):
    """Run the bare net on its input ``LATE`` steps late; a row that is emptied hears nothing from before."""
    net, x, state, out = build(False), data(), None, []
    for t in range(TIME):
        if t == AT:
            edit(state)
        now = x[t - LATE].clone() if t >= LATE else torch.zeros_like(x[0])
        if t >= AT > t - LATE:
            now[EMPTIED[edit]] = 0.0
        _, state = net(now, state)
        out.append(neuron(state).v + neuron(state).i)
    return torch.stack(out)


def run(build, edit, mode=torch.no_grad):
    net, x, state, out = build(True), data(), None, []
    with mode():
        for t in range(TIME):
            if t == AT:
                with torch.no_grad():
                    edit(state)
            _, state = net(x[t], state)
            out.append(neuron(state).v + neuron(state).i)
    return torch.stack(out)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("edit", EMPTIED)
@pytest.mark.parametrize("build", NETS.values(), ids=NETS)
def test_what_is_written_into_a_state(build, edit, mode):
    """Rows set to zero begin anew with empty lines, anything else is an edit, and spikes arrive."""
    with torch.no_grad():
        want = reference(build, edit)
    torch.testing.assert_close(run(build, edit, mode).detach(), want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("edit", EMPTIED)
@pytest.mark.parametrize("build", NETS.values(), ids=NETS)
def test_writing_while_gradients_are_recorded_is_refused(build, edit):
    """No copies are kept there, so nobody can tell a reset of rows from an edit; ``_replace`` and ``tree_map`` can."""
    with pytest.raises(dk.HistoryError, match="rows were changed"):
        run(build, edit, torch.enable_grad)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("build", NETS.values(), ids=NETS)
def test_rows_that_change_places_by_writing_are_refused(build, mode):
    with pytest.raises(dk.HistoryError, match="rows were changed"):
        run(build, swapped, mode)


def test_a_state_written_to_with_nothing_under_way():
    """No false alarm: an empty line goes with any row."""
    net, one, two = chain(True), None, None
    with torch.no_grad():
        for t in range(TIME):
            if t == AT:
                swapped(one)
            x = torch.ones(3, 3) * (t == 0) * torch.tensor([[1.0], [2.0], [3.0]])
            _, one = net(x, one)
            _, two = net(x, two)
    torch.testing.assert_close(neuron(one).v, neuron(two).v[[1, 0, 2]])
    assert not torch.equal(neuron(one).v, neuron(two).v)


def test_the_reference_hears_the_edit():
    """The test above compares something: each edit changes the run, and an emptied line differs from an edit."""
    with torch.no_grad():
        plain = reference(chain, copied_over)
        assert all(not torch.equal(reference(chain, edit), plain) for edit in EMPTIED if edit is not copied_over)
    assert isinstance(cell(True), nn.Module)
