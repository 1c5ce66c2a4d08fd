"""The rows of the list that were found with snnTorch, under Norse: loops inside, states that the caller hands on."""

from __future__ import annotations

import pytest
import torch
from rigs import arrivals, currents, exact_or_refused, late, ones, spikes
from torch import nn
from torch.nn.utils import prune

import delaykit as dk

norse = pytest.importorskip("norse.torch", reason="wraps norse models")


class Loop(nn.Module):
    """``fc`` and a leaky integrator in a loop inside forward; ``between(net, t, state)`` may change the state."""

    def __init__(self, pre=1, post=1):
        super().__init__()
        self.fc, self.li = ones(pre, post), norse.LICell()

    def forward(self, x, between=None):
        state = None
        for t in range(len(x)):
            if between is not None:
                state = between(self, t, state)
            v, state = self.li(self.fc(x[t]), state)
        return v


def looped(d=3, kind="axonal", batch=2, **sizes):
    net = Loop(**sizes)
    return dk.wrap_(net, {"fc": late(d, kind)}, example=torch.zeros(6, batch, net.fc.in_features))


def cut(state, rows):
    return None if state is None else state._replace(v=state.v[rows], i=state.i[rows])


def chain(d=3, kind="axonal", layer=ones, batch=2, pre=1):
    net = norse.SequentialState(layer(), norse.LICell())
    return dk.wrap_(net, {"0": late(d, kind)}, example=lambda: net(torch.zeros(batch, pre), None))


def stepped(net, x):
    state = None
    with currents(net[0]) as seen:
        for step in x:
            _, state = net(step, state)
    return seen


def test_a_packed_batch():
    """n = 2 2 2 1 1 1, spike of row 0 at t 1, delay 3: a current of 1 at t 4."""
    net, n = looped(), [2, 2, 2, 1, 1, 1]
    x = spikes(6, 1, batch=2)
    steps = [x[t, : n[t]] for t in range(6)]
    with currents(net.fc) as seen:
        net(steps, lambda _, t, state: cut(state, slice(n[t])))
    assert arrivals(seen) == {4: 1.0}


def test_first_rows_dropped():
    net, x = looped(), spikes(6, (1, 1), batch=2)
    with exact_or_refused(), currents(net.fc) as seen:
        net([*x[:3], *x[3:, 1:]], lambda _, t, state: cut(state, slice(1, None)) if t == 3 else state)
        assert arrivals(seen) == {4: 1.0}


@pytest.mark.parametrize(
    "edit",
    [
        lambda s: s._replace(v=s.v.clamp(-1, 1)),
        lambda s: s._replace(v=s.v + 0.01),
        lambda s: s._replace(v=s.v.detach().clone(), i=s.i.detach().clone()),
        lambda s: (s.v.detach().add_(0.01), s)[1],
    ],
)
def test_edited_states(edit):
    """Clamped, noised, replaced by its detached clone, written to in place: spikes arrive."""
    net = looped()
    with currents(net.fc) as seen, torch.no_grad():
        net(spikes(8, 1, 3), lambda _, t, state: edit(state) if t else state)
    assert arrivals(seen) == {4: 1.0, 6: 1.0}


class Slow(nn.Module):
    """A slow outer loop and a fast inner one, the delayed layer called once an outer step."""

    def __init__(self):
        super().__init__()
        self.fc, self.li = ones(), norse.LICell()

    def forward(self, x, inner=1):
        state = None
        for step in x:
            drive = self.fc(step)
            for _ in range(inner):
                v, state = self.li(drive, state)
        return v


def test_a_nested_inner_loop_that_the_example_did_not_have():
    net = dk.wrap_(Slow(), {"fc": late(3)}, example=spikes(6))
    with exact_or_refused(), currents(net.fc) as seen:
        net(spikes(6, 0), 3)
        assert arrivals(seen) in ({3: 1.0}, {1: 1.0})


def test_a_whole_call_of_another_length():
    for time in (4, 6, 9):
        net = looped(batch=1)
        with currents(net.fc) as seen:
            net(spikes(time, 0))
        assert arrivals(seen) == {3: 1.0}


class Flattened(nn.Module):
    """Time and batch in one dimension of the layer, as people do it to save calls."""

    def __init__(self):
        super().__init__()
        self.fc, self.li = ones(), norse.LICell()

    def forward(self, x):
        drives, state = self.fc(x.flatten(0, 1)).unflatten(0, x.shape[:2]), None
        for drive in drives:
            v, state = self.li(drive, state)
        return drives


@pytest.mark.parametrize("batch", [1, 2, 6])
def test_flattened_time_and_batch(batch):
    with exact_or_refused():
        net = dk.wrap_(Flattened(), {"fc": late(1)}, example=spikes(6, batch=batch))
        out = net(spikes(6, 0, batch=3))
        assert float(out[1, 0]) == 1.0 and float(out.sum()) == 1.0


class Still(Flattened):
    """A still image is encoded once and shown at every step."""

    def forward(self, image, steps=6):
        drive, state = self.fc(image), None
        for _ in range(steps):
            v, state = self.li(drive, state)
        return v


@pytest.mark.parametrize("batch", [1, 2, 6])
def test_a_still_image(batch):
    with pytest.raises(dk.WrapError):
        dk.wrap_(Still(), {"fc": late(1)}, example=torch.ones(batch, 1))


def test_windows_within_a_call():
    """State None at every window: a spike at the end of the first is lost with it, or the run is refused."""
    net = looped(batch=1)
    with exact_or_refused(), currents(net.fc) as seen:
        net(spikes(8, 3, 4), lambda _, t, state: state if t % 4 else None)
        assert arrivals(seen) == {7: 1.0}


def test_an_example_that_loops_another_method():
    class Method(Loop):
        def forward(self, x):
            raise AssertionError("nobody calls it")

        def run(self, x):
            state = None
            for step in x:
                v, state = self.li(self.fc(step), state)
            return v

    net = Method()
    with exact_or_refused():
        dk.wrap_(net, {"fc": late(2)}, example=lambda: net.run(spikes(4)))
        with currents(net.fc) as seen:
            net.run(spikes(6, 1))
        assert arrivals(seen) == {3: 1.0}


class Binary(nn.Conv1d):
    """A convolution whose forward uses the sign of its weight."""

    def forward(self, x):
        return self._conv_forward(x, self.weight.sign(), self.bias)


@pytest.mark.parametrize("kind", ["axonal", "dendritic"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_with_a_forward_of_its_own(kind, bias):
    torch.manual_seed(0)
    x = torch.randn(8, 1, 2, 5)

    def layer():
        torch.manual_seed(0)
        return Binary(2, 3, 3, bias=bias)

    net = norse.SequentialState(layer(), norse.LICell())
    with exact_or_refused():
        dk.wrap_(net, {"0": late(2, kind)}, example=lambda: net(x[0], None))
        got, own = stepped(net, x), layer()
        rest = 0 if own.bias is None else own.bias[:, None]
        for t, current in enumerate(got):
            want = own(x[t - 2]) if t >= 2 else torch.zeros_like(current) + rest
            torch.testing.assert_close(current, want.detach())


def test_threads_with_states_that_each_carries():
    """Two runs of one chain, step by step in turns: each goes on with its own line."""
    net, states = chain(batch=1), [None, None]
    with currents(net[0]) as seen:
        for t in range(6):
            for k in (0, 1):
                _, states[k] = net(spikes(6, k)[t], states[k])
    assert arrivals(seen[0::2]) == {3: 1.0} and arrivals(seen[1::2]) == {4: 1.0}


@pytest.mark.parametrize("kind", ["layer", "axonal", "dendritic", "synaptic"])
@pytest.mark.parametrize("d", [0, 2])
def test_an_input_buffer_that_is_used_again(kind, d):
    net, buffer, state = chain(d, kind, batch=1), torch.zeros(1, 1), None
    with currents(net[0]) as seen:
        for step in spikes(6, 1, 2):
            _, state = net(buffer.copy_(step), state)
    assert arrivals(seen) == {1 + d: 1.0, 2 + d: 1.0}


def recurrent(seed=0):
    torch.manual_seed(seed)
    cell = norse.LIFRecurrentCell(3, 4)
    with torch.no_grad():
        cell.input_weights.abs_().mul_(4), cell.recurrent_weights.mul_(3)
    return cell


def test_a_pruned_recurrent_weight_in_a_step_loop():
    """The weight is computed from another parameter by a hook before every call: the loop follows it."""
    with exact_or_refused():
        cell = recurrent()
        prune.l1_unstructured(cell, "recurrent_weights", 0.5)
        dk.wrap_(cell, {"recurrent": late(0)}, example=lambda: cell(torch.zeros(1, 3)))
        bare = recurrent()
        prune.l1_unstructured(bare, "recurrent_weights", 0.5)
        with torch.no_grad():
            cell.recurrent_weights_orig.mul_(2), bare.recurrent_weights_orig.mul_(2)
            one = two = None
            for step in 5 * spikes(8, *range(8), pre=3).flip(2):
                z, one = cell(step, one)
                y, two = bare(step, two)
                torch.testing.assert_close(z, y)
                torch.testing.assert_close(one.i, two.i)


def test_unwrapping_takes_the_optimizers_hook_away():
    sparsify = pytest.importorskip("delaykit_sparsify", reason="prunes at every step")
    net = norse.SequentialState(nn.Linear(6, 6), norse.LICell())
    rule = (late(1), sparsify.DynamicSparsity(0.5, regrow="none"))
    dk.wrap_(net, {"0": rule}, example=lambda: net(torch.zeros(1, 6), None))
    optimizer = torch.optim.SGD(dk.param_groups(net, lr=0.1))
    dk.attach(optimizer, net)
    dk.advance_(net, 1.0)
    assert int((net[0].weight == 0).sum()) == 18
    dk.unwrap_(net)
    net[0].weight.grad = torch.ones(6, 6)
    optimizer.step()
    assert bool((net[0].weight != 0).all())


def test_recurrent_weights_that_do_not_fit():
    """Norse cells do not know their size: the first call does."""
    cell = norse.LIFCell()
    with pytest.raises(dk.DelaykitError, match="4|5"):
        dk.wrap_(cell, {"": dk.Recurrent(late(1), weight=torch.eye(5))}, example=lambda: cell(torch.zeros(2, 4)))
    with pytest.raises(dk.DelaykitError, match="finite|nan"):
        weight = torch.full((4, 4), float("nan"))
        dk.wrap_(cell, {"": dk.Recurrent(late(1), weight=weight)}, example=lambda: cell(torch.zeros(2, 4)))


class Unused(Loop):
    def __init__(self):
        super().__init__()
        self.other = norse.LIFCell()


def test_recurrent_on_a_neuron_that_the_example_never_called():
    with pytest.raises(dk.WrapError, match="other") as caught:
        dk.wrap_(Unused(), {"other": dk.Recurrent(late(1))}, example=spikes(4))
    assert "never called" in str(caught.value) or "no step" in str(caught.value) or "not called" in str(caught.value)


@pytest.mark.parametrize("way", ["trace", "export"])
def test_recorders_are_refused(way):
    """The same sentence as for snnTorch; nirtorch has a test of its own in test_exporters."""
    for net, x in ((looped(2), spikes(4, 1, batch=2)), (chain(2), spikes(4, 1, batch=2)[0])):
        with pytest.raises(Exception, match="") as caught:
            if way == "trace":
                torch.jit.trace(net, (x,), check_trace=False)
            else:
                torch.export.export(net, (x,), strict=False)
        seen, error = [], caught.value
        while error is not None:
            seen.append(error)
            error = error.__cause__ or error.__context__
        assert any(isinstance(e, dk.DelaykitError) for e in seen), seen


def test_early_exit_between_two_calls():
    """No false alarm: an episode ends before the second of two branches was called in this step."""

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.one, self.two = ones(), norse.LICell(), norse.LICell()

        def forward(self, x, stop=None):
            one = two = None
            for t, step in enumerate(x):
                _, one = self.one(self.fc(step), one)
                if t == stop:
                    return one.v
                v, two = self.two(self.fc(step), two)
            return v

    net = dk.wrap_(Branches(), {"fc": late(3)}, example=spikes(6))
    for _ in (0, 1):
        net(spikes(6, 1), 3)
        with currents(net.fc) as seen:
            net(spikes(6, 0))
        assert arrivals(seen) == {6: 1.0, 7: 1.0}


def test_a_readout_fed_back_as_observation():
    """No false alarm: what comes in is data, though a neuron left it, one step after its current."""
    net, state, x = chain(2, batch=1), None, spikes(1, 0)[0]
    with currents(net[0]) as seen, torch.no_grad():
        for _ in range(6):
            x, state = net(x, state)
    assert sorted(arrivals(seen)) == [2, 5]


def test_the_plan_leaves_parameters_that_forward_changes():
    class Halved(Loop):
        def forward(self, x):
            self.fc.weight.data.mul_(0.5)
            return super().forward(x)

    net = Halved()
    dk.plan(net, {"fc": late(2)}, example=spikes(4))
    assert float(net.fc.weight) == 1.0


@pytest.mark.parametrize("kind", ["axonal", "dendritic", "synaptic"])
@pytest.mark.parametrize("d", [0, 1.5])
def test_cpu_autocast(kind, d):
    net, state, seen = chain(d, kind, lambda: nn.Linear(2, 2), pre=2), None, []
    net[0].register_forward_hook(lambda _, __, output: seen.append(output[0].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for _ in range(3):
            _, state = net(torch.ones(2, 2), state)
    assert set(seen) == {torch.float32}


@pytest.mark.parametrize("way", ["weight_norm", "parametrize"])
def test_unwrapping_behind_a_parametrization(way):
    net = chain(1, "axonal", lambda: nn.Linear(2, 2), pre=2)
    if way == "weight_norm":
        nn.utils.parametrizations.weight_norm(net[0])
    else:
        nn.utils.parametrize.register_parametrization(net[0], "weight", nn.Identity())
    dk.unwrap_(net)
    assert bool(torch.isfinite(net(torch.ones(1, 2), None)[0]).all())
    nn.utils.parametrize.remove_parametrizations(net[0], "weight")
    assert type(net[0]) is nn.Linear


def test_resetting_parameters_draws_the_delays_anew():
    net = norse.SequentialState(nn.Linear(6, 6), norse.LICell())
    component = dk.FreeDelay("axonal", max_delay=5, init="uniform")
    dk.wrap_(net, {"0": component}, example=lambda: net(torch.zeros(1, 6), None))
    before = net[0].dk.delay.delays().clone()
    net[0].reset_parameters()
    assert not torch.equal(net[0].dk.delay.delays(), before)
