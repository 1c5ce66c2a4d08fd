"""Norse's SequentialState, Lift and sequence modules with delays, against delays written out by hand."""

from __future__ import annotations

import hand
import pytest
import torch
from hand import HIDDEN, POST, PRE
from torch import nn
from torch.utils import _pytree

import delaykit as dk

norse = pytest.importorskip("norse.torch", reason="wraps norse models")
from norse.torch.functional.izhikevich import tonic_spiking  # noqa: E402

SCALE = 8.0
SITES = {"0": "axonal", "2": "axonal"}


def stepper():
    return norse.SequentialState(
        nn.Linear(PRE, HIDDEN, bias=False), norse.LIFCell(), nn.Linear(HIDDEN, POST), norse.LICell()
    )


def sequencer():
    return norse.SequentialState(nn.Linear(PRE, HIDDEN, bias=False), norse.LIF(), nn.Linear(HIDDEN, POST), norse.LI())


def step_outside(net, x):
    state, out = None, []
    for step in x:
        y, state = net(step, state)
        out.append(y)
    return torch.stack(out)


def whole(net, x):
    return net(x)[0]


@pytest.mark.parametrize("which", hand.DELAYS)
@pytest.mark.parametrize("kind", ["axonal", "dendritic", "synaptic"])
def test_stepped_from_outside(kind, which):
    hand.check(stepper, step_outside, {"0": kind, "2": kind}, which, scale=SCALE, rate=0.5)


@pytest.mark.parametrize("which", hand.DELAYS)
@pytest.mark.parametrize("kind", ["axonal", "dendritic", "synaptic"])
def test_whole_sequences(kind, which):
    options = {"0": {"time_dim": 0}, "2": {"time_dim": 0}}
    hand.check(sequencer, whole, {"0": kind, "2": kind}, which, scale=SCALE, rate=0.5, **options)


SEQUENCES = ["LSNN", "LIFEx", "LIFAdEx", "IAF", "Izhikevich"]


def sequence_neuron(kind):
    return norse.Izhikevich(tonic_spiking) if kind == "Izhikevich" else getattr(norse, kind)()


@pytest.mark.parametrize("which", hand.DELAYS)
@pytest.mark.parametrize("chain", [True, False], ids=["chain", "module"])
@pytest.mark.parametrize("kind", SEQUENCES)
def test_sequence_classes(kind, chain, which):
    def build():
        layers = nn.Linear(PRE, HIDDEN, bias=False), sequence_neuron(kind), nn.Linear(HIDDEN, POST), norse.LI()
        return norse.SequentialState(*layers) if chain else Whole(*layers)

    options = {"0": {"time_dim": 0}, "2": {"time_dim": 0}}
    scale = {"IAF": 1.0, "Izhikevich": 60.0}.get(kind, SCALE)
    hand.check(build, whole, {"0": "axonal", "2": "synaptic"}, which, scale=scale, rate=0.5, **options)


class Whole(nn.Sequential):
    """The same layers, called one by one on the whole sequence."""

    def forward(self, x):
        fc1, neuron, fc2, out = self
        return out(fc2(neuron(fc1(x))[0]))


class Nested(nn.Module):
    """A SequentialState as a member, its loop in the root's forward, ``s = None``."""

    def __init__(self):
        super().__init__()
        self.body, self.head = stepper(), nn.Linear(POST, 2)

    def forward(self, x):
        s, out = None, []
        for step in x:
            y, s = self.body(step, s)
            out.append(self.head(y))
        return torch.stack(out)


class Lifted(nn.Module):
    """Lift over the layers, sequence neurons in between."""

    def __init__(self):
        super().__init__()
        self.conv, self.lif = norse.Lift(nn.Conv2d(1, 2, 3)), norse.LIF()
        self.fc, self.li = norse.Lift(nn.Linear(8, POST)), norse.LI()

    def forward(self, x):
        z, _ = self.lif(self.conv(x))
        return self.li(self.fc(z.flatten(2)))[0]


def call(net, x):
    return net(x)


@pytest.mark.parametrize("which", hand.DELAYS)
def test_nested_in_a_module(which):
    hand.check(Nested, call, {"body.0": "axonal", "body.2": "axonal", "head": "axonal"}, which, scale=SCALE, rate=0.5)


@pytest.mark.parametrize("which", hand.DELAYS)
def test_lift(which):
    sites = {"conv.lifted_module": "axonal", "fc.lifted_module": "axonal"}
    hand.check(Lifted, call, sites, which, scale=SCALE, shape=(1, 4, 4))


def test_lift_inside_sequential_state():
    def build():
        lift = norse.Lift(nn.Linear(PRE, HIDDEN, bias=False))
        return norse.SequentialState(lift, norse.LIF(), norse.Lift(nn.Linear(HIDDEN, POST)), norse.LI())

    sites = {"0.lifted_module": "axonal", "2.lifted_module": "axonal"}
    hand.check(build, whole, sites, "mixed", scale=SCALE, rate=0.5)


def test_recurrent_cells_inside_sequential_state():
    """Three sites of three kinds in one chain, stepped and whole, equal each other."""
    torch.manual_seed(0)
    cells = norse.SequentialState(
        nn.Linear(PRE, HIDDEN), norse.LIFRecurrentCell(HIDDEN, HIDDEN), nn.Linear(HIDDEN, POST)
    )
    layers = norse.SequentialState(nn.Linear(PRE, HIDDEN), norse.LIFRecurrent(HIDDEN, HIDDEN), nn.Linear(HIDDEN, POST))
    cells, layers, x = cells.double(), layers.double(), hand.spikes_in(rate=0.5)
    with torch.no_grad():
        cells[1].input_weights.mul_(4)
    layers.load_state_dict(cells.state_dict())
    rules = {"0": dk.FreeDelay(init=2.5), "1.*": dk.FreeDelay(init=1.5), "2": dk.FreeDelay(init=2.0)}
    dk.wrap_(cells, rules, example=lambda: step_outside(cells, x))
    rules["2"] = dk.At(rules["2"], time_dim=0)
    dk.wrap_(layers, rules, example=x)
    for data in (x, x, x[:, :2]):
        hand.assert_same(step_outside(cells, data), whole(layers, data))
    rates = hand.firing(layers, whole, x)
    assert 0.02 <= rates["1"] <= 0.3, rates


def test_detached_states_keep_late_spikes():
    net, twin = stepper().double(), stepper().double()
    made = hand.hand_made(twin, SITES, "mixed")
    x = hand.spikes_in(15, rate=0.5)
    hand.make_lively_(twin, step_outside, x, made, scale=SCALE)
    hand.excite_like_(net, twin, made)
    dk.wrap_(net, hand.rules(SITES), example=lambda: step_outside(net, x))
    hand.set_delays_(net, made)
    hand.clear(made)
    states = [None, None]
    for segment in x.split(5):
        for late in made.values():
            late.detach()
        outs = []
        for k, model in enumerate((net, twin)):
            if states[k] is not None:
                states[k] = [_detached(s) for s in states[k]]
            out = []
            for step in segment:
                y, states[k] = model(step, states[k])
                out.append(y)
            outs.append(torch.stack(out))
        hand.assert_same(*outs)
        for y in outs:
            y.square().sum().backward()
        mine, theirs = hand.named_gradients(net), hand.named_gradients(twin)
        for name in theirs:
            hand.assert_same(mine[name], theirs[name], what=name)


def _detached(state):
    return _pytree.tree_map(lambda leaf: leaf.detach() if hasattr(leaf, "detach") else leaf, state)


def test_foreign_and_reused_states_are_refused():
    net, x = stepper().double(), hand.spikes_in(rate=0.5)
    dk.wrap_(net, hand.rules(SITES), example=lambda: step_outside(net, x))
    _, state = net(x[0])
    kept = list(state)
    net(x[1], state)
    with pytest.raises(dk.HistoryError, match="stepped already"):
        net(x[2], kept)
    with pytest.raises(dk.HistoryError, match="None"):
        net(x[0], [torch.zeros(1), *kept[1:]])


def test_unwrapping_gives_the_flags_back():
    net, x = stepper().double(), hand.spikes_in(rate=0.5)
    flags, bare = list(net.stateful_layers), step_outside(net, x)
    dk.wrap_(net, {"*": dk.FreeDelay(init=0)}, example=lambda: step_outside(net, x))
    assert net.stateful_layers == [True] * 4
    torch.testing.assert_close(step_outside(net, x), bare, rtol=0, atol=0)
    dk.unwrap_(net)
    assert net.stateful_layers == flags
    torch.testing.assert_close(step_outside(net, x), bare, rtol=0, atol=0)


def test_recurrent_sequential():
    """The output of the chain comes back as its input; the history rides in the nested state."""

    def build():
        return norse.RecurrentSequential(nn.Linear(PRE, PRE, bias=False), norse.LIFCell())

    hand.check(build, step_outside, {"module.0": "axonal"}, "mixed", scale=SCALE, rate=0.5)


class Deep(norse.RecurrentSequential):
    """Three layers, whose last or second output comes back as input; the loop is inside."""

    def __init__(self, output):
        middle = norse.LIFRecurrentCell(HIDDEN, HIDDEN) if output == -1 else norse.LIFExCell()
        layers = nn.Linear(PRE, HIDDEN), middle, nn.Linear(HIDDEN, PRE), norse.LSNNCell(), nn.Linear(PRE, PRE)
        super().__init__(*layers, norse.LIFCell(), output_modules=output)

    def forward(self, x):
        s, out = None, []
        for step in x:
            y, s = super().forward(step, s)
            out.append(y)
        return torch.stack(out)


@pytest.mark.parametrize("which", hand.DELAYS)
@pytest.mark.parametrize("output", [-1, 3])
def test_deeper_recurrent_sequential(output, which):
    sites = {"module.0": "axonal", "module.2": "synaptic"}
    scale = 1.5 if output == -1 else 4.0  # recurrent cells excite themselves
    hand.check(lambda: Deep(output), lambda net, x: net(x), sites, which, scale=scale, rate=0.5)


def shared_in_one_chain(steps):
    fc, neuron = nn.Linear(PRE, PRE, bias=False), norse.LIFCell if steps else norse.LIF
    return norse.SequentialState(fc, neuron(), fc, neuron())


class SharedByTwoChains(nn.Module):
    """One Linear in two chains, a state for each."""

    def __init__(self):
        super().__init__()
        fc = nn.Linear(PRE, PRE, bias=False)
        self.one, self.two = norse.SequentialState(fc, norse.LIFCell()), norse.SequentialState(fc, norse.LIFCell())

    def forward(self, x):
        s1 = s2 = None
        out = []
        for step in x:
            z, s1 = self.one(step, s1)
            z, s2 = self.two(z, s2)
            out.append(z)
        return torch.stack(out)


SHARED = {
    "steps": (lambda: shared_in_one_chain(True), step_outside, "0", {"streams": 2}),
    "sequence": (lambda: shared_in_one_chain(False), whole, "0", {"time_dim": 0}),
    "two chains": (SharedByTwoChains, call, "one.0", {"streams": 2}),
}


@pytest.mark.parametrize("case", SHARED)
def test_a_shared_connection_has_a_history_in_every_place(case):
    build, run, site, options = SHARED[case]
    net, *_ = hand.check(
        build, run, {site: "axonal"}, "mixed", scale=SCALE, rate=0.5, **{site.replace(".", "_"): options}
    )
    chains = [m for m in net.modules() if isinstance(m, norse.SequentialState)]
    dk.unwrap_(net)
    assert all(chain.stateful_layers == [False, True] * (len(chain) // 2) for chain in chains)


def in_pieces(net, x):
    state, out = None, []
    for piece in x.split(5):
        y, state = net(piece, state)
        out.append(y)
    return torch.cat(out)


@pytest.mark.parametrize("kind", ["axonal", "dendritic", "synaptic"])
def test_a_sequence_in_pieces_keeps_its_late_spikes(kind):
    net, x = sequencer().double(), hand.spikes_in(23)
    hand.make_lively_(net, whole, x, {}, scale=2.0)
    dk.wrap_(net, {"0": dk.FreeDelay(kind, max_delay=7), "2": dk.FreeDelay(kind, max_delay=7)}, example=x)
    outs, grads = [], []
    for run in (whole, in_pieces):
        outs.append(run(net, x))
        outs[-1].square().sum().backward()
        grads.append(hand.named_gradients(net))
    hand.assert_same(*outs)
    for name, gradient in grads[0].items():
        hand.assert_same(grads[1][name], gradient, what=name)
    assert 0.02 <= hand.firing(net, whole, x)["1"] <= 0.4
    with pytest.raises(dk.HistoryError, match="None"):
        net(x, [torch.zeros(1), None, None, None])
