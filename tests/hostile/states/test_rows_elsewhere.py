"""Rows of a connection's input that are not the rows of its neuron: turned, flipped, joined, several for each."""

from __future__ import annotations

import copy

import pytest
import torch
from queue_reference import Line
from rigs import leaky
from torch import nn

import delaykit as dk
from delaykit.planning import plan as planning

DELAYS = {
    "layer": 2.0, "axonal": [2.0, 1.3], "dendritic": [1.0, 2.6, 0.4], "synaptic": [[2.0, 1.3], [0.4, 3.0], [1.5, 0.0]],
}  # fmt: skip
TIME, AT, BATCH, PATCHES = 9, 4, 2, 2
GONE = torch.tensor([True, False])
LAYOUTS = {  # what comes before the layer, and what behind it; x is (batch, patch, channel)
    "plain": (lambda x: x, lambda y: y),
    "flat": (lambda x: x.flatten(0, 1), lambda y: y.unflatten(0, (-1, PATCHES))),
    "pooled": (lambda x: x.flatten(0, 1), lambda y: y.unflatten(0, (-1, PATCHES)).mean(1)),
    "swap": (lambda x: x.transpose(0, 1), lambda y: y.transpose(0, 1)),
    "flip": (lambda x: x.flip(0), lambda y: y.flip(0)),
    "picked": (lambda x: x, lambda y: y[[1, 0]]),
    "views": (lambda x: torch.stack([x[:, 0], 2 * x[:, 1]]), lambda y: y.sum(0)),
    "joined": (lambda x: torch.cat([x[:, 0], 2 * x[:, 1]]), lambda y: y.unflatten(0, (2, -1)).sum(0)),
    "mean": (lambda x: x[:, 0], lambda y: y - y.mean(0)),
}
EXACT = ("plain", "flat", "pooled")
ELSEWHERE = [name for name in LAYOUTS if name not in EXACT]


class Net(nn.Module):
    def __init__(self, layout, **options):
        super().__init__()
        self.fc, self.lif = nn.Linear(2, 3), leaky(0.7, init_hidden=True, output=True, **options)
        self.layout = layout

    def forward(self, x):
        before, behind = LAYOUTS[self.layout]
        return self.lif(behind(self.fc(before(x))))[1]


def data(batch=BATCH, patches=PATCHES):
    x = torch.rand(TIME, batch, patches, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[AT:] = 0.0
    return x


def both(layout, kind="axonal", **rule):
    """Return a wrapped net and a bare one with a queue in it."""
    torch.manual_seed(0)
    bare, delay = Net(layout).double(), DELAYS[kind]
    net, part = copy.deepcopy(bare), dk.FreeDelay(kind, max_delay=4, init=delay)
    dk.wrap_(net, {"fc": dk.At(part, **rule)}, example=data()[0])
    return net, bare, Line(bare.fc, torch.tensor(delay, dtype=torch.float64), kind)


def run(net, x, change=None):
    net.lif.reset_mem()
    out = []
    with torch.no_grad():
        for t, step in enumerate(x):
            if t == AT and change is not None:
                change(net)
            out.append(net(step).clone())
    return out


def in_place(net):
    net.lif.mem[0] = 0


def replaced(net):
    keep = torch.ones(BATCH, *[1] * (net.lif.mem.dim() - 1), dtype=torch.float64)
    keep[0] = 0
    net.lif.mem = net.lif.mem * keep


def by_name(net):
    if hasattr(net.fc, "dk"):
        dk.reset(net, rows=GONE)
    in_place(net)


WAYS = [in_place, replaced, by_name]


@pytest.mark.parametrize("kind", DELAYS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("layout", EXACT)
def test_rows_begin_anew_where_several_of_the_input_are_one_of_the_neuron(layout, way, kind):
    net, bare, line = both(layout, kind)

    def of_the_bare(bare):
        line.clear_rows(GONE if layout == "plain" else GONE.repeat_interleave(PATCHES))
        way(bare)

    torch.testing.assert_close(run(net, data(), way), run(bare, data(), of_the_bare))


@pytest.mark.parametrize("kind", DELAYS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("layout", ELSEWHERE)
def test_rows_that_are_elsewhere_are_refused(layout, way, kind):
    net, *_ = both(layout, kind)
    with pytest.raises(dk.HistoryError, match=r"input, which are others.*dk\.reset\(net\).*get_submodule\('fc'\)"):
        run(net, data(), way)


def all_at_zero(net):
    net.lif.mem = net.lif.mem * 0


def library(net):
    net.lif.reset_mem()


def edited(net):
    net.lif.mem = net.lif.mem * 0.5 + 0.1


@pytest.mark.parametrize("kind", DELAYS)
@pytest.mark.parametrize("change", [all_at_zero, library, edited])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_whole_resets_and_edits_are_exact(layout, change, kind):
    net, bare, line = both(layout, kind)

    def of_the_bare(bare):
        if change is not edited:
            line.clear()
        change(bare)

    torch.testing.assert_close(run(net, data(), change), run(bare, data(), of_the_bare))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("layout", ELSEWHERE)
def test_with_nothing_under_way_rows_begin_anew(layout, way):
    net, bare, _ = both(layout)
    silent = data()
    silent[:AT] = 0.0
    silent[AT:] = data()[0]
    for each in (net, bare):
        nn.init.zeros_(each.fc.bias)
    loud = [lambda net: net.lif.mem.add_(0.3), way]
    torch.testing.assert_close(
        run(net, silent, lambda n: [one(n) for one in loud]), run(bare, silent, lambda n: [one(n) for one in loud])
    )


@pytest.mark.parametrize("kind", DELAYS)
@pytest.mark.parametrize("reset", ["auto", "manual"])
def test_rows_of_the_input_that_the_caller_names(reset, kind):
    """The first sample is the last row of the input; what is said counts until the next step."""
    net, bare, line = both("flip", kind, reset=reset)

    def named(net):
        dk.reset(net.fc, rows=GONE.flip(0))
        if reset == "auto":
            dk.reset(net, rows=GONE)  # another layer may want the neuron's
        in_place(net)

    def of_the_bare(bare):
        line.clear_rows(GONE.flip(0))
        in_place(bare)

    if reset == "manual":
        dk.reset(net)
    torch.testing.assert_close(run(net, data(), named), run(bare, data(), of_the_bare))
    if reset == "auto":
        net.lif.reset_mem()
        with torch.no_grad():
            net(data()[0])
            dk.reset(net.fc, rows=[False, False])
            net(data()[1])
            in_place(net)
            with pytest.raises(dk.HistoryError, match="which are others"):
                net(data()[2])


def test_a_mask_that_can_only_be_the_inputs_is_taken_for_it():
    net, bare, line = both("joined")
    mask = torch.tensor([True, False, True, False])  # the first sample's rows, in both views

    def of_the_net(net):
        dk.reset(net, rows=mask)
        in_place(net)

    def of_the_bare(bare):
        line.clear_rows(mask)
        in_place(bare)

    torch.testing.assert_close(run(net, data(), of_the_net), run(bare, data(), of_the_bare))


def test_a_mask_that_fits_nothing_is_refused():
    for layout, match in (("flat", "a mask of 3"), ("joined", "a mask of 3"), ("plain", "a mask of 3")):
        net, *_ = both(layout)
        with pytest.raises(dk.HistoryError, match=match):
            run(net, data(), lambda net: dk.reset(net, rows=[True, False, False]))


class TwoViews(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 3)
        self.one, self.two = (leaky(0.7, init_hidden=True, output=True) for _ in range(2))

    def forward(self, x):
        a, b = self.fc(torch.cat([x[:, 0], x[:, 1]])).chunk(2)
        return self.one(a)[1], self.two(b)[1]


def test_two_views_name_the_rows_of_both_sides():
    torch.manual_seed(0)
    bare = TwoViews().double()
    net = dk.wrap(bare, {"fc": dk.FreeDelay("axonal", max_delay=4, init=DELAYS["axonal"])}, example=data()[0])
    line = Line(bare.fc, torch.tensor(DELAYS["axonal"], dtype=torch.float64), "axonal")
    mask = torch.tensor([True, False, True, False])

    def walk(net, change):
        net.one.reset_mem(), net.two.reset_mem()
        out = []
        with torch.no_grad():
            for t, step in enumerate(data()):
                if t == AT:
                    change(net)
                    net.one.mem[0], net.two.mem[0] = 0, 0
                out += [y.clone() for y in net(step)]
        return out

    with pytest.raises(dk.HistoryError, match="some of the 2 rows of neuron 'one'.* in the 4 rows of this"):
        walk(net, lambda _: None)
    torch.testing.assert_close(
        walk(net, lambda net: dk.reset(net, rows=mask)), walk(bare, lambda _: line.clear_rows(mask))
    )


@pytest.mark.parametrize("layout", ["swap", "joined"])
def test_a_batch_that_shrinks_is_refused(layout):
    net, *_ = both(layout)
    x = [*data()[:AT], *data()[AT:, :1]]

    def cut(net):
        net.lif.mem = net.lif.mem[:1]

    with pytest.raises(dk.HistoryError):
        run(net, x, cut)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_plan_and_the_status_say_it(layout):
    net, *_ = both(layout)
    told = dk.status(net).sites[0].emptied_by
    plan = str(dk.plan(Net(layout).double(), {"fc": dk.FreeDelay("axonal")}, example=data()[0]))
    for text in (told, plan):
        assert ("other rows than the neuron" in text) is (layout not in EXACT), text
        assert ("row by row" in text) is (layout in EXACT), text


def test_a_checkpoint_knows_it(tmp_path):
    net, *_ = both("flip")
    dk.save(net, tmp_path / "delays")
    twin = Net("flip").double()
    dk.load(twin, tmp_path / "delays")
    with pytest.raises(dk.HistoryError, match="which are others"):
        run(twin, data(), in_place)


def test_normalisation_over_the_batch_moves_no_rows():
    class Normed(Net):
        def __init__(self):
            super().__init__("plain")
            self.norm = nn.BatchNorm1d(3, track_running_stats=False)

        def forward(self, x):
            return self.lif(self.norm(self.fc(x[:, 0])))[1]

    net = Normed().double()
    dk.wrap_(net, {"fc": dk.FreeDelay("axonal", max_delay=4, init=2.0)}, example=data(4)[0])
    assert net.fc._dk.sites[""].timing.rows == "same"


class Readout(nn.Module):
    """The last layer leads to no neuron, and follows the one before it."""

    def __init__(self, turned):
        super().__init__()
        self.fc, self.lif, self.out = nn.Linear(2, 3), leaky(0.7, init_hidden=True, output=True), nn.Linear(3, 2)
        self.turned = turned

    def forward(self, x):
        mem = self.lif(self.fc(x[:, 0]))[1]
        return self.out(mem.flip(0) if self.turned else mem)


@pytest.mark.parametrize("turned", [False, True])
def test_a_readout_whose_rows_are_not_those_of_the_neuron_before_it(turned):
    torch.manual_seed(0)
    bare = Readout(turned).double()
    net = dk.wrap(bare, {"out": dk.FreeDelay("layer", max_delay=4, init=2.0)}, example=data()[0])
    line = Line(bare.out, torch.tensor(2.0, dtype=torch.float64), "layer")

    def of_the_bare(bare):
        line.clear_rows(GONE)
        in_place(bare)

    if turned:
        with pytest.raises(dk.HistoryError, match="which are others"):
            run(net, data(), in_place)
    else:
        torch.testing.assert_close(run(net, data(), in_place), run(bare, data(), of_the_bare))


@pytest.mark.parametrize("kind", DELAYS)
def test_an_empty_batch_in_the_middle(kind):
    """The bare neuron begins anew when its input has another shape; a batch cut without its state is refused."""
    torch.manual_seed(0)
    bare = nn.Sequential(nn.Linear(2, 3), leaky(0.7, init_hidden=True, output=True)).double()
    net, x = copy.deepcopy(bare), data()[:, :, 0]
    dk.wrap_(net, {"0": dk.FreeDelay(kind, max_delay=4, init=DELAYS[kind])}, example=x[0])

    def steps(reset):
        net[1].reset_mem()
        net(x[0]), net(x[1])
        if reset:
            net[1].reset_mem()
        assert net(x[2, :0])[1].shape == (0, 3)
        if reset:
            net[1].reset_mem()
        return [net(x[t])[1] for t in range(3)]

    with torch.no_grad():
        begun = steps(True)
        net[1].reset_mem()
        torch.testing.assert_close(begun, [net(x[t])[1] for t in range(3)])
        with pytest.raises(dk.HistoryError, match="a batch that was 2 rows"):
            steps(False)


def test_the_reference_finds_rows_that_are_taken_for_the_neurons(monkeypatch):
    """Planted: nobody looks where rows are."""
    monkeypatch.setattr(planning.timing, "rows_of", lambda *_: "same")
    net, bare, line = both("flip")

    def of_the_bare(bare):
        line.clear_rows(GONE.flip(0))
        in_place(bare)

    with pytest.raises(AssertionError):
        torch.testing.assert_close(run(net, data(), in_place), run(bare, data(), of_the_bare))
