"""Random connections, run three ways: step by step, as a whole sequence, and by ``dk.rollout``; float64.

Feed-forward, a loop of steps and one sequence must agree. On a recurrent connection the step loop and the rollout must,
in values, last state and all gradients; and the connection's whole sequence, run over the spikes that came out, must
give the currents that the loop had.
"""

from __future__ import annotations

import importlib.util
import random

import snntorch as snn
import torch
from hand import spike
from torch import nn

import delaykit as dk

TOLERANCE = {"rtol": 1e-9, "atol": 1e-10}


def _config(package, name, *values, **options):
    return getattr(importlib.import_module(package), name)(*values, **options)


def components(r: random.Random):
    """Draw the components of one connection; of plugins that are installed."""
    most = r.choice((0.5, 1.0, 3.0, 5.5))
    kernel = r.choice((("linear", 0.0), ("linear", 0.0), ("triangle", r.choice((0.5, 2.0, 9.3))), ("gaussian", 0.7)))
    free = dk.FreeDelay(
        r.choice(("layer", "axonal", "dendritic", "synaptic")), max_delay=most, kernel=kernel[0], spread=kernel[1]
    )
    drawn = {
        "delaykit": lambda: (free,),
        "delaykit_hetsyn": lambda: (
            _config("delaykit_hetsyn", "HetSyn", r.choice(("synaptic", "post", "pre", "layer")),
                    tau=("uniform", 2.0, 20.0), dt_ms=1.0), *([free] if r.random() < 0.4 else [])),
        "delaykit_motifs": lambda: (_config("delaykit_motifs", "Motif", depth=r.randint(2, 6), scale=0.3),),
        "delaykit_delrec": lambda: (
            _config("delaykit_delrec", "DelRec", max_delay=4, sigma=r.choice((0.0, 2.0, 4.7))),),
        "delaykit_spatial": lambda: (_config("delaykit_spatial", "Spatial", dims=2, scale=2.0),),
        "delaykit_sparsify": lambda: (_config("delaykit_sparsify", "DynamicSparsity", 0.5), free),
    }  # fmt: skip
    known = ["delaykit"] + [name for name in drawn if importlib.util.find_spec(name) is not None]
    return drawn[r.choice(known)]()


def stirred(net: nn.Module, seed: int) -> nn.Module:
    """Put weights that spread from the start and the delays somewhere legal."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in net.named_parameters():
            if name.endswith("dk.taps") or name.endswith("delay.taps"):
                value.copy_(0.3 * torch.randn(value.shape, generator=generator, dtype=value.dtype))
    return net


def drive(time: int, batch: int, size: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(time, batch, size, generator=generator) < 0.4).double().requires_grad_()


def differences(one, two) -> str:
    """Compare two lists of values and gradients by name."""
    for name in one:
        a, b = one[name], two[name]
        if a is None or b is None:
            if any(v is not None and v.any() for v in (a, b)):
                return f"{name} has a gradient one way only"
        elif a.shape != b.shape or not torch.allclose(a, b, **TOLERANCE):
            return f"{name} off by {float((a - b).abs().max()):.3g}"
    return ""


def gathered(values: dict, x: torch.Tensor, net: nn.Module) -> dict:
    """Add the gradients of everything that learns."""
    leaves = {"input": x, **{n: p for n, p in net.named_parameters() if p.requires_grad}}
    loss = sum((v * torch.linspace(1, 2 + k, v.numel()).reshape(v.shape)).sum() for k, v in enumerate(values.values()))
    grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return {n: v.detach() for n, v in values.items()} | {f"d {n}": g for n, g in zip(leaves, grads, strict=True)}


class Steps(nn.Module):
    """One connection before a neuron, in a loop of steps, or on the whole sequence at once."""

    def __init__(self, pre: int, post: int, whole: bool, bias: bool) -> None:
        super().__init__()
        self.fc, self.lif, self.whole = nn.Linear(pre, post, bias=bias), snn.Leaky(0.8, spike_grad=spike), whole

    def forward(self, x):
        mem, out = self.lif.reset_mem(), []
        for step in self.fc(x) if self.whole else x:
            _, mem = self.lif(step if self.whole else self.fc(step), mem)
            out.append(mem)
        return torch.stack(out)


def forward_pair(seed: int) -> str:
    """Run a feed-forward connection by steps and as a sequence."""
    r = random.Random(seed)
    pre, post, time, batch, bias = r.randint(1, 5), r.randint(1, 5), r.randint(2, 12), r.randint(1, 3), r.random() < 0.5
    parts, ways = components(r), []
    for whole in (False, True):
        torch.manual_seed(seed)
        net = Steps(pre, post, whole, bias).double()
        example = torch.zeros(time if time not in (batch, pre) else 13, batch, pre, dtype=torch.float64)
        options = {"time_dim": 0} if whole else {}
        dk.wrap_(net, {"fc": dk.At(*parts, **options)}, example=example)
        stirred(net, seed)
        x = drive(time, batch, pre, seed)
        ways.append(gathered({"membrane": net(x)}, x, net))
    return differences(*ways)


def recurrent_triple(seed: int) -> str:
    """Run a recurrent connection by steps, by the rollout, and its own whole sequence over the spikes that came out."""
    r = random.Random(seed)
    size, time, batch = r.randint(2, 5), r.randint(2, 12), r.randint(1, 3)
    torch.manual_seed(seed)
    kind, reset = r.choice(("RLeaky", "RSynaptic")), r.choice(("subtract", "zero", "none"))
    own = {"alpha": 0.5} if kind == "RSynaptic" else {}
    make = getattr(snn, kind)
    neuron = make(
        beta=0.8, spike_grad=spike, linear_features=size, reset_mechanism=reset, init_hidden=True, **own
    ).double()  # fmt: skip
    dk.wrap_(neuron, {"recurrent": dk.At(*components(r), reset="manual")})
    stirred(neuron, seed)

    currents = []

    def loop(x):
        neuron.reset_mem()
        dk.reset(neuron)
        handle = neuron.recurrent.register_forward_hook(lambda _, __, output: seen.append(output.detach()))
        seen, pairs = [], []
        for step in x:
            pairs.append((neuron(step), neuron.mem))
            currents.append(seen[-1])  # a reset to zero asks for it twice
        handle.remove()
        return dict(zip(("spikes", "membrane"), map(torch.stack, zip(*pairs, strict=True)), strict=True))

    ways = []
    for run in (loop, lambda x: dict(zip(("spikes", "membrane"), dk.rollout(neuron, x), strict=True))):
        x = drive(time, batch, size, seed)
        values = run(x)
        ways.append(gathered(values | {"last": values["membrane"][-1]}, x, neuron))
    return differences(*ways) or _sequence_of(neuron.recurrent, ways[0]["spikes"], torch.stack(currents))


def _sequence_of(connection, spikes, currents) -> str:
    before = torch.cat([torch.zeros_like(spikes[:1]), spikes[:-1]])
    with torch.no_grad():
        whole = connection.dk.engine(_product_of(connection)).sequence(before)
    return differences({"currents": currents}, {"currents": whole})


def _product_of(connection):
    from delaykit.attaching.connection.products import product_of

    return product_of(connection, connection.forward)


def three_ways(seeds) -> dict[int, str]:
    """Run many connections both ways; return what differs, by seed."""
    found = {}
    for seed in seeds:
        verdict = forward_pair(seed) or recurrent_triple(seed)
        if verdict:
            found[seed] = verdict
    return found
