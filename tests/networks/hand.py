"""Delays by hand: keep every past input, shift it, interpolate between steps. Shares no code with delaykit.

:func:`check` takes a stranger's model and the way he runs one sequence, wraps one copy with delaykit and puts a
:class:`HandDelayed` into the other, and compares outputs and gradients over a first, a repeated and a
different-batch-size sequence.
"""

from __future__ import annotations

import math
import random

import torch
from torch import nn

import delaykit as dk

TIME, BATCH, PRE, HIDDEN, POST = 14, 3, 5, 6, 4
DELAYS = ("2", "mixed")  # every delay 2 steps, an integer with its two-sided gradient; and a mixture from 2.5 on
LIVELY: dict[str, int] = {}  # the draw that made a model fire, tried first next time
MIXED = (2.5, 0.0, 1.0, 3.25, 2.0, 0.5, 4.0)


class Spike(torch.autograd.Function):
    """Spike in the dtype of the membrane: snnTorch's own surrogates return float32, whatever they are given."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad / (1 + (3 * x) ** 2)


spike = Spike.apply


def tap(delay, k):
    """Linear interpolation between steps, two-sided at integers: (1 - |k - d|), never below zero."""
    return (1 - (k - delay).abs()).clamp(min=0)


class HandDelayed(nn.Module):
    """A linear module whose input (or output) arrives late. ``clear`` begins a sequence.

    ``streams`` sequences take turns; a neuron that calls it ``repeats`` times a step advances time once. With
    ``time_dim`` it is called once for a whole sequence.
    """

    def __init__(self, module, delay, granularity="axonal", streams=1, repeats=1, time_dim=None):
        super().__init__()
        self.module, self.granularity = module, granularity
        self.delay = nn.Parameter(delay)
        self.streams, self.repeats, self.time_dim = streams, repeats, time_dim
        self.clear()

    def clear(self):
        self.pasts, self.calls = [[] for _ in range(self.streams)], 0

    def detach(self):
        self.pasts = [[x.detach() for x in past] for past in self.pasts]

    def forward(self, x):
        if self.time_dim is not None:
            past, steps = [], []
            for step in x.unbind(self.time_dim):
                past.append(step)
                steps.append(self.arriving(past))
            return torch.stack(steps, self.time_dim)
        past = self.pasts[self.calls // self.repeats % self.streams]
        if self.calls % self.repeats == 0:
            past.append(x)
        self.calls += 1
        return self.arriving(past)

    def arriving(self, past):
        reach = min(len(past), math.ceil(float(self.delay.detach().max())) + 2)
        late = [past[-1 - k] for k in range(reach)]
        bias = getattr(self.module, "bias", None)
        if self.granularity == "synaptic":
            taps = [self.module.weight * tap(self.delay, k) for k in range(reach)]
            current = sum(x @ w.T for x, w in zip(late, taps, strict=True))
            return current if bias is None else current + bias
        space = len(getattr(self.module, "kernel_size", ()))
        delay = self.delay.reshape(-1, *[1] * space) if self.delay.ndim else self.delay
        if self.granularity == "dendritic":
            shift = 0.0 if bias is None else bias.reshape(-1, *[1] * space)
            return sum(tap(delay, k) * (self.module(x) - shift) for k, x in enumerate(late)) + shift
        return self.module(sum(tap(delay, k) * x for k, x in enumerate(late)))


def values(which, module, granularity, size=None):
    """Delays of one site: all the same number, or a mixture."""
    matrix = getattr(module, "weight", None)
    post, pre = (size, size) if matrix is None else matrix.shape[:2]
    shape = {"layer": (), "axonal": (pre,), "dendritic": (post,), "synaptic": (post, pre)}[granularity]
    if which != "mixed":
        return torch.full(shape, float(which), dtype=torch.float64)
    count = math.prod(shape)
    return torch.tensor([MIXED[k % len(MIXED)] for k in range(count)], dtype=torch.float64).reshape(shape)


def replace_(net, site, **options):
    """Put a :class:`HandDelayed` where a connection was, under all its names."""
    old = net.get_submodule(site)
    new = HandDelayed(old, **options)
    for parent in list(net.modules()):
        for name, child in list(parent._modules.items()):
            if child is old and not isinstance(parent, HandDelayed):
                parent._modules[name] = new
    return new


def hand_made(net, sites, which, **options):
    """Give ``net`` delays by hand, ``{site: granularity}``; options by site name. Returns them by site name."""
    made = {}
    for site, granularity in sites.items():
        own = dict(options.get(site.replace(".", "_"), {}))
        delay = values(which, net.get_submodule(site), granularity, own.pop("size", None))
        made[site] = replace_(net, site, delay=delay, granularity=granularity, **own)
    return made


def rules(sites, reset="auto", time_dim=None):
    """Delaykit's rules for ``{site: granularity}``; every delay starts at 2.5, see :func:`set_delays_`."""
    return {
        name: dk.At(dk.FreeDelay(kind, max_delay=9, init=2.5), reset=reset, time_dim=time_dim)
        for name, kind in sites.items()
    }


def set_delays_(net, made):
    """Copy the delays of the model made by hand into the wrapped one."""
    with torch.no_grad():
        for site, hand in made.items():
            net.get_submodule(site).dk.delay.delay.copy_(hand.delay)


def firing(net, run, x):
    """Rates of all neurons that spike, by module path."""
    spikes, handles = {}, []
    for path, module in net.named_modules():
        if type(module).__module__.startswith(("snntorch", "norse")) or getattr(module, "spiking", False):

            def hook(_, __, output, path=path):
                first = output if isinstance(output, torch.Tensor) else output[0]
                if isinstance(first, torch.Tensor):
                    spikes.setdefault(path, []).append(first.detach().flatten())

            handles.append(module.register_forward_hook(hook))
    try:
        with torch.no_grad():
            run(net, x)
    finally:
        for handle in handles:
            handle.remove()
    flat = {path: torch.cat(parts) for path, parts in spikes.items()}
    return {path: float(s.mean()) for path, s in flat.items() if bool(((s == 0) | (s == 1)).all())}


def excite_(net, seed, scale=1.0):
    """Draw all weights anew, more excitatory than not, each matrix at a gain of its own."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(net.named_parameters()):
            gain = 0.3 * scale * 10.0 ** torch.rand((), generator=generator)
            if name.endswith("delay"):
                continue
            if p.ndim >= 2:
                p.copy_(gain * (torch.randn(p.shape, generator=generator) + 0.6) / math.sqrt(p[0].numel()))
            elif "bias" in name.rpartition(".")[2]:  # an LSTM has a bias_ih and a bias_hh
                p.copy_(0.1 * torch.randn(p.shape, generator=generator))


def make_lively_(net, run, x, made, least=0.02, most=0.3, optional=(), scale=1.0):
    """Find weights at which every spiking neuron of the hand-made model fires at 2-30 %; fail if there are none."""
    seen = []
    for seed in (LIVELY.get(str(net), 0), *range(100)):
        excite_(net, seed, scale)
        clear(made)
        rates = {path: r for path, r in firing(net, run, x).items() if path not in optional}
        seen.append(rates)
        if rates and all(least <= r <= most for r in rates.values()):
            LIVELY[str(net)] = seed
            return
    raise AssertionError(f"this model fires at 2-30 % at none of 100 draws of its weights: {seen[:10]}")


def clear(made):
    for hand in made.values():
        hand.clear()


def named_gradients(net):
    """Gradients under the bare model's names; delays under ``SITE.delay``."""
    out = {}
    for name, p in net.named_parameters():
        name = name.replace(".dk.delay.delay", ".delay").replace(".module.", ".")
        if p.grad is not None:
            out[name] = p.grad.clone()
    net.zero_grad(set_to_none=True)
    return out


def assert_same(got, want, tolerance=1e-10, what=""):
    torch.testing.assert_close(
        got, want, rtol=tolerance, atol=tolerance, check_dtype=True, msg=lambda m: f"{what}: {m}"
    )


def compare(net, twin, made, run, x, tolerance=1e-10):
    """One sequence through both: outputs and every gradient."""
    clear(made)
    state = torch.get_rng_state()  # dropout must draw the same mask in both
    want = run(twin, x)
    torch.set_rng_state(state)
    got = run(net, x)
    assert_same(got, want, tolerance, "output")
    cotangent = torch.randn(want.shape, generator=torch.Generator().manual_seed(1), dtype=want.dtype)
    (got * cotangent).sum().backward()
    (want * cotangent).sum().backward()
    for site, late in made.items():
        assert bool(late.delay.grad.any()), f"no gradient reaches the delays of {site}: the test shows nothing"
    mine, hand = named_gradients(net), named_gradients(twin)
    assert set(mine) == set(hand), (sorted(mine), sorted(hand))
    for name in hand:
        assert_same(mine[name], hand[name], tolerance, f"gradient of {name}")


def spikes_in(time=TIME, batch=BATCH, shape=(PRE,), seed=0, rate=0.3):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(time, batch, *shape, generator=generator) < rate).double()


def check(
    build,
    run,
    sites,
    which,
    *,
    reset="auto",
    time_dim=None,
    shape=(PRE,),
    rate=0.3,
    optional=(),
    before=None,
    least=0.02,
    scale=1.0,
    **options,
):
    """Compare a wrapped model with the one made by hand.

    Args:
        build: makes the bare model.
        run: ``run(net, x)`` runs one sequence the stranger's way and returns a tensor.
        sites: ``{site: granularity}``.
        which: one of :data:`DELAYS`.
        reset: reset policy in the rules.
        time_dim: as in :class:`delaykit.At`.
        shape: of one input step.
        rate: of input spikes.
        least: smallest firing rate of a layer; 0.3 is the largest.
        scale: of the weights that are tried.
        optional: neurons that need not fire.
        before: called with the wrapped net before each of its sequences (manual resets).
        options: of :class:`HandDelayed`, by site name with ``_`` for dots.
    """
    net, twin = build().double(), build().double()
    x, other = spikes_in(shape=shape, rate=rate), spikes_in(TIME + 3, BATCH - 1, shape, seed=5, rate=rate)
    made = hand_made(twin, sites, which, **options)
    make_lively_(twin, run, x, made, least, optional=optional, scale=scale)
    excite_like_(net, twin, made)
    dk.wrap_(net, rules(sites, reset, time_dim), example=lambda: run(net, x))
    set_delays_(net, made)

    def go(model, data):
        if before is not None and model is net:
            before(net)
        return run(model, data)

    for data in (x, x, other, x):
        compare(net, twin, made, go, data)
    return net, twin, made


def excite_like_(net, twin, made):
    """Copy weights from the model made by hand into the bare one."""
    state = {
        k.replace(".module.", "."): v
        for k, v in twin.state_dict().items()
        if not any(k == f"{s}.delay" for s in made) and not k.endswith(".delay")
    }
    missing = net.load_state_dict(state, strict=False)
    assert not [k for k in missing.missing_keys if not k.endswith(".V")], missing


def photograph(net):
    """All there is to see of a model and of the random generators, to compare before and after."""
    modules = {
        path: (type(m), m.training, {k: (id(v), repr(v)) for k, v in sorted(m.__dict__.items())})
        for path, m in net.named_modules()
    }
    tensors = {k: (id(v), v.detach().clone()) for k, v in [*net.named_parameters(), *net.named_buffers()]}
    return modules, tensors, torch.get_rng_state(), random.getstate()


def same_photograph(one, two):
    assert one[0] == two[0]
    assert {k: v[0] for k, v in one[1].items()} == {k: v[0] for k, v in two[1].items()}
    assert all(torch.equal(v[1], two[1][k][1]) for k, v in one[1].items())
    assert torch.equal(one[2], two[2]) and one[3] == two[3]
