"""A sequence in pieces: what lies behind a product keeps the weight that made it, and one sequence has one dropout."""

from __future__ import annotations

import pytest
import torch
from rigs import late
from torch import nn

import delaykit as dk

norse = pytest.importorskip("norse.torch", reason="wraps norse models")

TIME, PIECE = 12, 4


def conv(bias=True):
    torch.manual_seed(0)
    return nn.Conv1d(1, 2, 3, bias=bias)


def streamed(kind="dendritic", d=2.5, layer=conv, dropout=0.0, batch=1):
    net, component = norse.SequentialState(layer(), norse.LI()), late(d, kind)
    if dropout:
        delrec = pytest.importorskip("delaykit_delrec", reason="needs the plugin delaykit-delrec")
        component = delrec.DelRec(kind, max_delay=5, init=d, sigma=0, dropout=dropout)
    return dk.wrap_(net, {"0": dk.At(component, time_dim=0)}, example=torch.zeros(TIME, batch, 7))


def data():
    return (torch.rand(TIME, 1, 7, generator=torch.Generator().manual_seed(1)) < 0.5).float()


def shifted(current, d=2.5):
    """Delay the first dimension by hand, between steps by halves."""
    low, share = int(d), d - int(d)
    one, two = (torch.cat([torch.zeros_like(current[:k]), current[: len(current) - k]]) for k in (low, low + 1))
    return (1 - share) * one + share * two


def feed(net, change=lambda net, n: None):
    out, state = [], None
    for n, piece in enumerate(data().split(PIECE)):
        change(net, n)
        y, state = net(piece, state)
        out.append(y)
    return torch.cat(out)


def doubled(net, n):
    if n:
        with torch.no_grad():
            net[0].weight.mul_(2)


def replaced(net, n):
    if n:
        net[0].weight = nn.Parameter(net[0].weight.detach() * 2)


@pytest.mark.parametrize("change", [doubled, replaced])
@pytest.mark.parametrize("gradients", [False, True])
def test_a_dendritic_convolution_keeps_the_weight_that_made_a_current(change, gradients):
    """Pieces of four steps, the weight twice as large in each: a current under way is what it was when it was made."""
    x, bare = data(), conv()
    with torch.no_grad():
        made = torch.cat([2**n * (bare(piece) - bare.bias[:, None]) for n, piece in enumerate(x.split(PIECE))])
        want, _ = norse.LI()(shifted(made) + bare.bias[:, None])
    with torch.set_grad_enabled(gradients):
        got = feed(streamed(), change if not gradients else replaced)
    torch.testing.assert_close(got.detach(), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("d", [0.0, 2.0, 2.5])
def test_its_gradients_go_through_all_pieces(d):
    """The weight, the bias and the delays get from pieces what they get from the whole sequence."""
    whole, pieces = streamed(d=d), streamed(d=d)
    whole(data())[0].square().sum().backward()
    feed(pieces).square().sum().backward()
    for (name, one), two in zip(whole.named_parameters(), pieces.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-5, atol=1e-6, msg=name)
    assert all(float(p.grad.abs().sum()) > 0 for p in whole.parameters())


LAYERS = {"conv": (conv, "axonal"), "conv behind": (conv, "dendritic"), "linear": (lambda: nn.Linear(7, 8), "synaptic")}


@pytest.mark.parametrize("layer", LAYERS)
def test_one_dropout_for_all_pieces(layer):
    """A mask is drawn once a sequence: in pieces the same neurons are missing as in the whole, at every step."""
    build, kind = LAYERS[layer]
    net = streamed(kind, layer=build, dropout=0.5).train()
    torch.manual_seed(5)
    want, _ = net(data())
    torch.manual_seed(5)
    torch.testing.assert_close(feed(net), want, rtol=1e-5, atol=1e-6)
    assert bool(torch.isclose(want, want[:1] * 0).all(0).any()), "somebody is missing"


def test_a_new_sequence_draws_anew():
    net = streamed("axonal", layer=lambda: nn.Linear(7, 64), dropout=0.5).train()
    torch.manual_seed(5)
    one, two = feed(net), feed(net)
    assert not torch.equal(one.eq(0).all(0), two.eq(0).all(0))


def test_a_lingering_current_keeps_its_mask_in_the_steps_after_the_first_piece():
    hetsyn = pytest.importorskip("delaykit_hetsyn", reason="needs the plugin delaykit-hetsyn")
    delrec = pytest.importorskip("delaykit_delrec", reason="needs the plugin delaykit-delrec")
    lingers = hetsyn.HetSyn(tau=("uniform", 2.0, 9.0), dt_ms=1.0)
    torch.manual_seed(0)
    net = norse.SequentialState(nn.Linear(7, 8), norse.LI())
    delay = delrec.DelRec("synaptic", max_delay=5, init=2.5, sigma=0, dropout=0.5)
    rules = {"0": dk.At(delay, lingers, time_dim=0)}
    dk.wrap_(net, rules, example=torch.zeros(TIME, 1, 7))
    net.train()
    torch.manual_seed(5)
    want, _ = net(data())
    torch.manual_seed(5)
    torch.testing.assert_close(feed(net), want, rtol=1e-5, atol=1e-6)


def test_a_piece_of_another_batch_is_refused():
    net = streamed()
    _, state = net(data()[:4], None)
    with pytest.raises(dk.HistoryError, match="behind one of"):
        net(torch.zeros(4, 1, 9), state)


def test_rows_that_move_between_pieces_would_move_the_mask():
    net = streamed("axonal", 2, lambda: nn.Linear(7, 8), dropout=0.5, batch=2)
    x = torch.zeros(8, 2, 7)
    x[0] = torch.tensor([[1.0], [2.0]])
    _, state = net.train()(x, None)
    state[1] = state[1]._replace(v=state[1].v.flip(0), i=state[1].i.flip(0))
    with pytest.raises(dk.HistoryError, match="between two pieces"):
        net(x, state)


class Followed(nn.Module):
    """A convolution over the whole of a piece, then the steps of a neuron that goes on from the piece before."""

    def __init__(self):
        super().__init__()
        snn = pytest.importorskip("snntorch", reason="wraps snntorch models")
        self.conv, self.lif = conv(), snn.Leaky(0.5, threshold=1e9, init_hidden=True, output=True)

    def forward(self, x):
        return torch.stack([self.lif(current)[1] for current in self.conv(x)])


@pytest.mark.parametrize("kind", ["axonal", "dendritic"])
def test_pieces_of_a_neuron_that_goes_on(kind):
    """A layer over whole pieces, and a neuron that keeps its membrane: the line goes on with it, until its reset."""
    net = Followed()
    dk.wrap_(net, {"conv": dk.At(late(2, kind), time_dim=0)}, example=torch.zeros(TIME, 1, 7))
    with torch.no_grad():
        want = [None, None]
        for n in (0, 1):
            net.lif.reset_mem()
            want[n] = net(data())
        net.lif.reset_mem()
        got = torch.cat([net(piece) for piece in data().split(PIECE)])
    torch.testing.assert_close(got, want[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(want[1], want[0])


def test_a_followed_convolution_keeps_the_weight_that_made_a_current():
    net, bare = Followed(), conv()
    dk.wrap_(net, {"conv": dk.At(late(2.5, "dendritic"), time_dim=0)}, example=torch.zeros(4, 1, 7))
    net.lif.reset_mem()
    out, made = [], []
    with torch.no_grad():
        for n, piece in enumerate(data().split(PIECE)):
            net.conv.weight.copy_(bare.weight * 2**n)
            made.append(2**n * (bare(piece) - bare.bias[:, None]))
            out.append(net(piece))
        want, mem = [], torch.zeros(2, 5)
        for current in shifted(torch.cat(made)) + bare.bias[:, None]:
            mem = 0.5 * mem + current
            want.append(mem)
    torch.testing.assert_close(torch.cat(out), torch.stack(want), rtol=1e-5, atol=1e-6)
