"""Rows of a carried state selected, permuted, masked, copied, rebuilt: histories move along, or it is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from rigs import arrivals, currents, exact_or_refused, late, ones, spikes
from torch import nn
from torch.utils._pytree import tree_map

import delaykit as dk

norse = pytest.importorskip("norse.torch", reason="wraps norse models")

TIME = 10


def chain(d=3, kind="axonal"):
    net = norse.SequentialState(ones(), norse.LICell())
    return dk.wrap_(net, {"0": late(d, kind)}, example=lambda: [net(torch.zeros(2, 1), None), None])


def cell(rules=None, seed=0):
    """A recurrent cell that fires, both of its connections delayed."""
    torch.manual_seed(seed)
    net = norse.LIFRecurrentCell(3, 4)
    with torch.no_grad():
        net.input_weights.abs_().mul_(4), net.recurrent_weights.mul_(3)
    rules = rules or {"input": late(3), "recurrent": late(2)}
    return dk.wrap_(net, rules, example=lambda: net(torch.zeros(2, 3)))


def data(batch=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 5 * (torch.rand(TIME, batch, 3, generator=generator) < 0.5).float()


def walk(net, x, state=None):
    out = []
    for step in x:
        z, state = net(step, state)
        out.append(state.v + state.i)
    return torch.stack(out), state


CHANGES = {
    "permuted": (lambda v: v[[1, 0, 2]], [1, 0, 2]),
    "first": (lambda v: v[:1], [0]),
    "last two": (lambda v: v[1:], [1, 2]),
    "by index": (lambda v: v[torch.tensor([2, 0])], [2, 0]),
    "by mask": (lambda v: v[torch.tensor([True, False, True])], [0, 2]),
    "index_select": (lambda v: v.index_select(0, torch.tensor([2, 1, 0])), [2, 1, 0]),
    "repeated": (lambda v: v[[0, 0, 1]], [0, 0, 1]),
    "flipped": (lambda v: v.flip(0), [2, 1, 0]),
    "rolled": (lambda v: v.roll(1, 0), [2, 0, 1]),
    "cloned": (lambda v: v.clone(), [0, 1, 2]),
    "detached": (lambda v: v.detach(), [0, 1, 2]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_rows_of_a_cell_state_move_with_tree_map(change):
    """After the change row k goes on as row rows[k] would have."""
    make, rows = CHANGES[change]
    net, x = cell(), data()
    head, tail = x[:5], x[5:]
    with torch.no_grad():
        want, _ = walk(net, x)
        assert bool((want[5:, 0] != want[5:, 1]).any()), "rows that agree show nothing"
        _, state = walk(net, head)
        with exact_or_refused():
            got, _ = walk(net, tail[:, rows], tree_map(make, state))
            torch.testing.assert_close(got, want[5:, rows])


@pytest.mark.parametrize("change", CHANGES)
def test_rows_of_a_chain_move_with_tree_map(change):
    make, rows = CHANGES[change]
    net, x = chain(), spikes(8, (3, 0), (4, 1), (2, 2), batch=3)
    state = None
    with torch.no_grad(), currents(net[0]) as seen, exact_or_refused():
        for t, step in enumerate(x):
            if t == 5:
                state = tree_map(make, state)
            _, state = net(step[rows] if t >= 5 else step, state)
        late_ones = {0: {6: 1.0}, 1: {7: 1.0}, 2: {5: 1.0}}
        for k, row in enumerate(rows):
            assert {t: v for t, v in arrivals(seen, k).items() if t >= 5} == late_ones[row]


@pytest.mark.parametrize("way", ["multiplied", "where", "zeroed in place"])
def test_one_row_reset_by_hand(way):
    """An agent's episode ends: its row is set to zero, the others go on."""
    net, x = cell(), data()
    mask = torch.tensor([[0.0], [1.0], [1.0]])

    def change(v):
        if way == "multiplied":
            return v * mask
        if way == "where":
            return torch.where(mask.bool(), v, torch.zeros_like(v))
        v[0] = 0.0
        return v

    with torch.no_grad():
        want, _ = walk(net, x)
        fresh, _ = walk(net, x[5:, :1])
        _, state = walk(net, x[:5])
        with exact_or_refused():
            got, _ = walk(net, x[5:], tree_map(change, state))
            torch.testing.assert_close(got[:, 1:], want[5:, 1:])
            torch.testing.assert_close(got[:, :1], fresh)


def test_rows_moved_by_replace_alone():
    """``state._replace(v=state.v[[1, 0, 2]], ...)`` moves some fields; it must not mix samples in silence."""
    net, x = cell(), data()
    order = [1, 0, 2]
    with torch.no_grad():
        want, _ = walk(net, x)
        _, state = walk(net, x[:5])
        with exact_or_refused():
            moved = state._replace(z=state.z[order], v=state.v[order], i=state.i[order])
            got, _ = walk(net, x[5:, order], moved)
            torch.testing.assert_close(got, want[5:, order])


def test_values_changed_by_replace_keep_the_histories():
    """An edit of v is an edit: spikes arrive."""
    net, x = cell({"input": late(3)}), data()
    with torch.no_grad():
        net.recurrent_weights.zero_()
        _, state = walk(net, x[:5])
        seen = []
        for step in x[5:]:
            _, state = net(step, state._replace(v=state.v * 0.5))
            seen.append(state.i)
        state, whole = None, []
        for step in x:
            _, state = net(step, state)
            whole.append(state.i)
        torch.testing.assert_close(seen, whole[5:])


def test_minibatches_of_stored_states():
    """PPO: states are kept, cut into minibatches and stepped again."""
    net, x = cell(), data(4)
    with torch.no_grad():
        want, _ = walk(net, x)
        _, state = walk(net, x[:5])
        with exact_or_refused():
            for rows in ([0, 2], [1, 3]):
                got, _ = walk(net, x[5:, rows], tree_map(lambda v, rows=rows: v[rows], state))
                torch.testing.assert_close(got, want[5:, rows])


def test_a_state_used_twice_works_or_says_so():
    net, x = cell(), data()
    with torch.no_grad():
        _, state = walk(net, x[:5])
        want, _ = walk(net, x[5:], state)
        try:
            got, _ = walk(net, x[5:], state)
            torch.testing.assert_close(got, want)
        except dk.HistoryError as error:
            assert "stepped already" in str(error)


@pytest.mark.parametrize("where", ["cell", "chain"])
def test_a_copied_state_works_or_says_that_it_is_a_copy(where):
    with torch.no_grad():
        if where == "cell":
            net, x = cell(), data()
            want, _ = walk(net, x)
            _, state = walk(net, x[:5])
            twin = copy.deepcopy(state)
            try:
                got, _ = walk(net, x[5:], twin)
                torch.testing.assert_close(got, want[5:])
            except dk.HistoryError as error:
                assert "stepped already" not in str(error) and "cop" in str(error)
            return
        net, x, state = chain(), spikes(6, 1, batch=2), None
        for t in range(3):
            _, state = net(x[t], state)
        twin = copy.deepcopy(state)
        try:
            with currents(net[0]) as seen:
                for t in range(3, 6):
                    _, twin = net(x[t], twin)
            assert arrivals(seen) == {1: 1.0}
        except dk.HistoryError as error:
            assert "stepped already" not in str(error) and "cop" in str(error)


@pytest.mark.parametrize("way", ["own class", "library class", "tuple"])
def test_a_rebuilt_state_works_or_says_that_it_was_rebuilt(way):
    net, x = cell(), data()
    with torch.no_grad():
        want, _ = walk(net, x)
        _, state = walk(net, x[:5])
        values = [v.clone() for v in state]
        base = norse.LIFRecurrentCell(3, 4)(x[0])[1].__class__
        rebuilt = {"own class": type(state), "library class": base}.get(way, lambda *v: tuple(v))(*values)
        try:
            got, _ = walk(net, x[5:], rebuilt)
            torch.testing.assert_close(got, want[5:])
        except dk.HistoryError as error:
            assert "without its delay history" in str(error) and "_replace" in str(error)
        except AttributeError:
            assert way == "tuple"  # Norse itself wants its own class


def by_hand(state):
    """Truncated BPTT as it is written for neurons: the connections' entries are forgotten."""
    return [tree_map(lambda v: v.detach(), s) if hasattr(s, "_asdict") else s for s in state]


def tensors_alone(state):
    return tree_map(lambda v: v.detach() if isinstance(v, torch.Tensor) else v, state)


def every_entry(state):
    return tree_map(lambda v: None if v is None else v.detach(), state)


def gradients_in_pieces(cut):
    torch.manual_seed(0)
    net = norse.SequentialState(nn.Linear(2, 3), norse.LIFCell(), nn.Linear(3, 2), norse.LICell())
    dk.wrap_(net, {"0": late(2), "2": late(2)}, example=lambda: [net(torch.zeros(1, 2), None), None])
    x, state = 8 * torch.rand(9, 1, 2), None
    for piece in x.split(3):
        state, total = None if state is None else cut(state), 0.0
        for step in piece:
            y, state = net(step, state)
            total = total + y.sum()
        total.backward()
    return [p.grad for p in net.parameters()]


@pytest.mark.parametrize("cut", [by_hand, tensors_alone])
def test_detached_states_of_the_neurons_cut_their_lines_too(cut):
    torch.testing.assert_close(gradients_in_pieces(cut), gradients_in_pieces(every_entry), rtol=0, atol=0)


def test_states_of_two_runs_joined():
    """torch.cat of two states, row after row: histories join, or it is refused."""
    net, x = cell(), data(4)
    with torch.no_grad():
        want, _ = walk(net, x)
        _, one = walk(net, x[:5, :2])
        _, two = walk(net, x[:5, 2:])
        try:
            joined = type(one)(*(torch.cat([a, b]) for a, b in zip(one, two, strict=True)))
            got, _ = walk(net, x[5:], joined)
            torch.testing.assert_close(got, want[5:])
        except dk.HistoryError:
            pass
        with exact_or_refused():
            joined = one._replace(**{k: torch.cat([getattr(one, k), getattr(two, k)]) for k in one._fields})
            got, _ = walk(net, x[5:], joined)
            torch.testing.assert_close(got, want[5:])


def test_the_state_of_another_cell_is_refused():
    one, two, x = cell(), cell(seed=1), data()
    with torch.no_grad():
        _, state = walk(one, x[:5])
        with pytest.raises(dk.HistoryError):
            walk(two, x[5:], state)


def test_nested_states_of_refractory_cells():
    torch.manual_seed(0)
    net = norse.LIFRefracRecurrentCell(3, 4)
    with torch.no_grad():
        net.input_weights.abs_().mul_(4)
    dk.wrap_(net, {"input": late(3)}, example=lambda: net(torch.zeros(2, 3)))
    x, rows = data(), [2, 0, 1]

    def run(x, state=None):
        out = []
        for step in x:
            z, state = net(step, state)
            out.append(state.lif.v)
        return torch.stack(out), state

    with torch.no_grad():
        want, _ = run(x)
        _, state = run(x[:5])
        with exact_or_refused():
            got, _ = run(x[5:, rows], tree_map(lambda v: v[rows], state))
            torch.testing.assert_close(got, want[5:, rows])


@pytest.mark.parametrize("change", ["permuted", "masked", "detached"])
def test_a_tree_map_over_tensors_alone_is_read_off_the_values(change):
    """``v[rows] if is_tensor(v) else v``: delaykit's own entry of the state is skipped, and nobody may be silent."""
    net, x, rows = cell(), data(), [1, 0]
    do = {
        "permuted": lambda v: v[rows],
        "masked": lambda v: v * torch.tensor([[0.0], [1.0]]).to(v.dtype),
        "detached": lambda v: v.detach(),
    }[change]
    with torch.no_grad():
        _, state = walk(net, x[:5, :2])
        want, _ = walk(net, x[5:, :2], tree_map(do, state))
        _, state = walk(net, x[:5, :2])
        with exact_or_refused():
            got, _ = walk(net, x[5:, :2], tree_map(lambda v: do(v) if torch.is_tensor(v) else v, state))
            torch.testing.assert_close(got, want)


def pulses():
    """Spikes under way at every step, and neurons that never rest from the first arrival on."""
    return torch.stack([torch.tensor([[1.0 + t], [2.0 + 3 * t]]) for t in range(TIME)])


def walk_chain(change, at, d=3):
    net, state, out = chain(d), None, []
    for t, step in enumerate(pulses()):
        v, state = net(step, state)
        out.append(v)
        if t == at:
            state = change(state)
    return torch.stack(out), net


def of_tensors(change):
    return lambda state: tree_map(lambda v: change(v) if torch.is_tensor(v) else v, state)


def whole(change):
    return lambda state: tree_map(change, state)


ROW = torch.tensor([[0.0], [1.0]])


@pytest.mark.parametrize("at", [4, 6])
@pytest.mark.parametrize("change", [lambda v: v * ROW, torch.zeros_like, lambda v: v.clone(), lambda v: v.detach()])
def test_a_line_in_sequential_state_follows_the_neuron_whose_state_alone_was_changed(change, at):
    got, net = walk_chain(of_tensors(change), at)
    want, other = walk_chain(whole(change), at)
    torch.testing.assert_close(got, want, rtol=0, atol=0)
    got.sum().backward(), want.sum().backward()
    torch.testing.assert_close(net[0].weight.grad, other[0].weight.grad, rtol=0, atol=0)


@pytest.mark.parametrize("change", [lambda v: v[[1, 0]], lambda v: v.flip(0), lambda v: v[1:]])
def test_rows_of_the_neurons_alone_that_change_places_are_refused(change):
    with pytest.raises(dk.HistoryError, match="0 of SequentialState: .* rows were changed"):
        walk_chain(of_tensors(change), 5)


def test_rows_zeroed_by_hand_in_the_list():
    def by_hand(state):
        return [s._replace(v=s.v * ROW, i=s.i * ROW) if hasattr(s, "_fields") else s for s in state]

    torch.testing.assert_close(walk_chain(by_hand, 5)[0], walk_chain(whole(lambda v: v * ROW), 5)[0], rtol=0, atol=0)


def test_a_neuron_that_begins_anew_begins_with_an_empty_line():
    got = walk_chain(lambda state: [state[0], None], 5)[0]
    torch.testing.assert_close(got, walk_chain(lambda state: [None, None], 5)[0], rtol=0, atol=0)
    assert not torch.equal(got, walk_chain(lambda state: state, 5)[0])


def test_pieces_whose_neuron_alone_was_changed_follow_or_are_refused():
    """Whole sequences in pieces: a cut goes on, another place of rows is refused, None empties the line."""

    def pieces(change):
        torch.manual_seed(0)
        net = norse.SequentialState(nn.Linear(1, 1, bias=False), norse.LI())
        dk.wrap_(net, {"0": late(3)}, example=torch.zeros(4, 2, 1))
        first, state = net(pulses()[:5], None)
        second, _ = net(pulses()[5:], change(state))
        second.sum().backward()
        grads.append(net[0].weight.grad)
        return torch.cat([first, second])

    grads = []
    want = pieces(lambda state: state)
    torch.testing.assert_close(pieces(of_tensors(lambda v: v.detach().clone())), want, rtol=0, atol=0)
    pieces(lambda state: [s.detach() if i == 0 else tree_map(torch.Tensor.detach, s) for i, s in enumerate(state)])
    torch.testing.assert_close(grads[1], grads[2], rtol=0, atol=0)
    assert not torch.equal(grads[0], grads[1])  # a cut is a cut
    with pytest.raises(dk.HistoryError, match="rows were changed"):
        pieces(of_tensors(lambda v: v.flip(0)))
    anew = pieces(lambda state: [state[0], None])
    torch.testing.assert_close(anew, pieces(lambda state: [None, None]), rtol=0, atol=0)
    assert not torch.equal(anew, want)


def test_the_container_is_given_back():
    net = chain()
    dk.unwrap_(net)
    assert type(net) is norse.SequentialState and not net.stateful_layers[0]
