"""A sequence in pieces through Norse's SequentialState: as step by step, and each piece costs its own steps."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils import _pytree

import delaykit as dk

norse = pytest.importorskip("norse.torch", reason="wraps norse models")

PIECE, PIECES = 8, 5
X = (torch.rand(PIECE * PIECES, 3, 6, generator=torch.Generator().manual_seed(0)) < 0.4).double()


def hetsyn(**options):
    plugin = pytest.importorskip("delaykit_hetsyn", reason="needs the plugin delaykit-hetsyn")
    return plugin.HetSyn(tau=("uniform", 2.0, 9.0), dt_ms=1.0, **options)


def spatial():
    plugin = pytest.importorskip("delaykit_spatial", reason="needs the plugin delaykit-spatial")
    return plugin.Spatial(dims=2, scale=3.0)


COMPONENTS = {
    "axonal": lambda: [dk.FreeDelay("axonal", max_delay=5, init=2.5)],
    "dendritic": lambda: [dk.FreeDelay("dendritic", max_delay=5, init=2.5)],
    "spatial": lambda: [spatial()],
    "hetsyn": lambda: [hetsyn()],
    "hetsyn groups": lambda: [hetsyn(groups=6)],
    "both": lambda: [dk.FreeDelay("synaptic", max_delay=5, init=2.5), hetsyn()],
}
EVERY = pytest.mark.parametrize("name", COMPONENTS)


def model(name, whole):
    torch.manual_seed(1)
    neurons = (norse.LIF(), norse.LI()) if whole else (norse.LIFCell(), norse.LICell())
    net = norse.SequentialState(nn.Linear(6, 8), neurons[0], nn.Linear(8, 5), neurons[1]).double()
    with torch.no_grad():
        for weight in net.parameters():
            weight.mul_(4)
    options = {"time_dim": 0} if whole else {}
    example = X if whole else lambda: [net(X[0]), None]
    return dk.wrap_(net, {site: dk.At(*COMPONENTS[name](), **options) for site in "02"}, example=example)


def run(net, whole, piece, state):
    if whole:
        return net(piece, state)
    outputs = []
    for step in piece:
        output, state = net(step, state)
        outputs.append(output)
    return torch.stack(outputs), state


def detached(state):
    return _pytree.tree_map(lambda v: v.detach() if hasattr(v, "detach") else v, state)


@EVERY
def test_pieces_are_what_steps_are_values_and_gradients(name):
    outputs, gradients = [], []
    for whole in (True, False):
        net, state, found = model(name, whole), None, []
        for piece in X.split(PIECE):
            output, state = run(net, whole, piece, state)
            found.append(output)
        outputs.append(torch.cat(found))
        gradients.append(torch.autograd.grad(outputs[-1].pow(2).sum(), list(net.parameters())))
    assert float(outputs[0].detach().abs().max()) > 0.1
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


@EVERY
@pytest.mark.parametrize("cut", ["before", "after"])
def test_pieces_are_what_steps_are_over_optimizer_steps(name, cut):
    """What was made with an old weight keeps it, what has yet to arrive meets the new one."""
    outputs = []
    for whole in (True, False):
        net, state, found = model(name, whole), None, []
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
        dk.attach(optimizer, net)
        for piece in X.split(PIECE):
            output, state = run(net, whole, piece, state)
            found.append(output.detach())
            optimizer.zero_grad()
            output.pow(2).sum().backward()
            state = detached(state) if cut == "before" else state
            optimizer.step()
            state = detached(state)
        outputs.append(torch.cat(found))
    torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-10)


@EVERY
def test_a_piece_costs_its_own_steps(name, monkeypatch):
    """However many came before: what a connection runs a piece over, and what it keeps, stay as they are."""
    from delaykit.attaching.connection import pieces

    net, state, ran = model(name, True), None, []
    over_time = pieces.over_time

    def counted(synapse, where, product, input, time_dim, run):
        ran[-1] += input.shape[time_dim]
        return over_time(synapse, where, product, input, time_dim, run)

    monkeypatch.setattr(pieces, "over_time", counted)
    kept = []
    with torch.no_grad():
        for piece in X.repeat(6, 1, 1).split(PIECE):
            ran.append(0)
            _, state = net(piece, state)
            kept.append(sum(v.inputs.numel() for v in state if isinstance(getattr(v, "inputs", None), torch.Tensor)))
    assert len(set(ran[6:])) == 1 and ran[-1] <= 2 * 5 * PIECE
    assert len(set(kept[6:])) == 1


def test_a_state_that_was_continued_is_not_continued_again():
    net = model("hetsyn", True)
    with torch.no_grad():
        _, first = net(X[:PIECE])
        one, _ = net(X[:PIECE], list(first))  # Norse writes into the list it is given
        other, second = net(X[:PIECE], list(first))  # what the first piece left may be continued twice
        torch.testing.assert_close(one, other)
        net(X[:PIECE], list(second))
        with pytest.raises(dk.HistoryError, match="continued already"):
            net(X[:PIECE], list(second))


def test_a_weight_that_changes_under_a_recorded_graph_is_refused():
    net = model("dendritic", True)
    _, state = net(X[:PIECE])
    with torch.no_grad():
        net[0].weight.mul_(2)
    with pytest.raises(dk.HistoryError, match="weight that changed"):
        net(X[:PIECE], state)
