"""Random windows of exact layers with delays, against the bare layer that is fed each spike when it arrives.

There are no steps here, and nothing goes on from window to window: what a program can do to a run is change its
weights and delays between windows, write over its inputs, run copies and threads, and feed windows of any batch.
"""

from __future__ import annotations

import copy
import random
import threading

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit_timing import Events, MultiSpikeLIF, PotentialReadout

PRE, HIDDEN, POST, DT, MOST = 3, 4, 2, 0.1, 3.0
KINDS = ("layer", "axonal", "dendritic", "synaptic")


def delayed(seed: int, kinds: tuple[str, str], tau: float | None) -> nn.ModuleList:
    """Make the layers under test."""
    generator = torch.Generator().manual_seed(seed)
    options = {"dt": DT, "generator": generator, "end": 1.5, "tau_membrane": tau, "weight_mean": 1.4}
    delays = [dk.FreeDelay(kind, max_delay=MOST, init="uniform") for kind in kinds]
    first = MultiSpikeLIF(PRE, HIDDEN, delay=delays[0], **options)
    return nn.ModuleList([first, PotentialReadout(HIDDEN, POST, delay=delays[1], **options)]).double()


def arriving(events: Events, delay: torch.Tensor, post: int) -> Events:
    """Give every synapse an input neuron of its own, whose spikes come when they arrive there."""
    size, late = events.size, delay.expand(post, events.size) * DT
    when, which, whose = [], [], []
    for sample in range(len(events)):
        for slot in torch.nonzero(events.mask[sample]).flatten().tolist():
            pre = int(events.neurons[sample, slot])
            for j in range(post):
                when.append(events.times[sample, slot] + late[j, pre])
                which.append(j * size + pre)
                whose.append(sample)
    flat = torch.stack(when) if when else torch.zeros(0, dtype=torch.float64)
    return Events.gather(flat, torch.tensor(whose, dtype=torch.int64), torch.tensor(which, dtype=torch.int64),
                         len(events), post * size)  # fmt: skip


def reference(layers, weights, delays, events: Events):
    """Run the bare neurons: no delays, one input neuron a synapse."""
    for layer, weight, delay in zip(layers, weights, delays, strict=True):
        post, pre = weight.shape
        kind = PotentialReadout if isinstance(layer, PotentialReadout) else MultiSpikeLIF
        options = {} if kind is PotentialReadout else {"threshold": layer.dynamics.threshold}
        bare = kind(post * pre, post, tau_synapse=layer.dynamics.tau_synapse, end=layer.dynamics.end,
                    tau_membrane=layer.dynamics.tau_membrane, **options).double()  # fmt: skip
        own = torch.block_diag(*weight.unsqueeze(1))  # (post, post * pre): neuron j hears its own synapses
        events = torch.func.functional_call(bare, {"weight": own}, (arriving(events, delay, post),))
    return events


def inputs(r: random.Random) -> Events:
    """Draw a window: batches of any size, samples without a spike among them."""
    rows = [[round(r.uniform(0, 1), 6) for _ in range(r.choice((0, 1, 4, 7)))] for _ in range(r.randint(1, 3))]
    events = Events.of(rows, [[r.randrange(PRE) for _ in row] for row in rows], size=PRE)
    return Events(events.times.requires_grad_(), events.neurons, PRE)


def run(layers, events: Events) -> torch.Tensor:
    return layers[1](layers[0](events))


def change(r: random.Random, layers) -> nn.ModuleList:
    """Do something between two windows that a delay line in its place would take."""
    layer = layers[r.randrange(2)]
    with torch.no_grad():
        name = r.choice(("weight in place", "weight replaced", "delays moved", "copied", "nothing"))
        if name == "weight in place":
            layer.weight.mul_(r.uniform(0.8, 1.2))
        elif name == "weight replaced":
            layer.weight = nn.Parameter(layer.weight * r.uniform(0.8, 1.2))
        elif name == "delays moved":
            layer.delay.delay.mul_(r.uniform(0.0, 1.0))
        elif name == "copied":
            return copy.deepcopy(layers)
    return layers


def together(layers, windows: list[Events]) -> list[torch.Tensor]:
    """Run windows in threads of their own."""
    out: dict[int, torch.Tensor] = {}
    works = [lambda k=k, window=window: out.update({k: run(layers, window)}) for k, window in enumerate(windows)]
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [out[k] for k in range(len(windows))]


def difference(seed: int) -> str:
    """Run one program; say where it is off, or ""."""
    r = random.Random(seed)
    kinds = (r.choice(KINDS), r.choice(KINDS))
    layers = delayed(seed, kinds, r.choice((None, 0.9)))
    for number in range(r.randint(1, 3)):
        layers = change(r, layers)
        windows = [inputs(r) for _ in range(r.choice((1, 1, 2)))]
        got = together(layers, windows) if len(windows) > 1 else [run(layers, windows[0])]
        weights = [layer.weight.detach().clone().requires_grad_() for layer in layers]
        delays = [layer.delay.delays().detach().clone().requires_grad_() for layer in layers]
        twins = [Events(w.times.detach().clone().requires_grad_(), w.neurons, PRE) for w in windows]
        wanted = [reference(layers, weights, delays, twin) for twin in twins]
        for one, two in zip(got, wanted, strict=True):
            if one.shape != two.shape or not torch.allclose(one, two, rtol=1e-7, atol=1e-8):
                return f"{kinds}, window {number}: {one.flatten()[:4].tolist()} for {two.flatten()[:4].tolist()}"
        leaves = [layer.weight for layer in layers] + [layer.delay.delay for layer in layers]
        leaves += [window.times for window in windows]
        mine = torch.autograd.grad(sum(o.square().sum() for o in got), leaves, allow_unused=True)
        others = [*weights, *delays, *(t.times for t in twins)]
        theirs = torch.autograd.grad(sum(o.square().sum() for o in wanted), others, allow_unused=True)
        for k, (a, b, leaf) in enumerate(zip(mine, theirs, leaves, strict=True)):
            a, b = (torch.zeros_like(leaf).flatten() if g is None else g.flatten().nan_to_num() for g in (a, b))
            if not torch.allclose(a, b, rtol=1e-6, atol=1e-7):
                return f"{kinds}, window {number}: gradient {k} off by {float((a - b).abs().max()):.3g}"
        with torch.no_grad():
            for window in windows:  # the caller's buffers are used again
                window.times.fill_(0.5)
    return ""


def faults(seeds) -> dict[int, str]:
    return {seed: verdict for seed in seeds if (verdict := difference(seed))}


def test_a_few_windows():
    assert not faults(range(5))


@pytest.mark.slow
def test_many_windows():
    assert not faults(range(1000, 1150))


MUTANTS = {
    "a delay in whole steps": lambda layer, late: (late / DT).round() * DT,
    "a delay that is read once": lambda layer, late: layer.__dict__.setdefault("first", late.detach()),
    "no gradient": lambda layer, late: late.detach(),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_planted_fault_is_found(mutant, monkeypatch):
    real = MultiSpikeLIF.delays

    def planted(layer):
        late = real(layer)
        return late if late is None else MUTANTS[mutant](layer, late)

    monkeypatch.setattr(MultiSpikeLIF, "delays", planted)
    assert any(difference(seed) for seed in range(12))
