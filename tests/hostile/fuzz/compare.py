"""Compare a wrapped model with the queue reference: equal, or one of delaykit's own errors; never another number."""

from __future__ import annotations

import random

import nets
import torch
from programs import EDITS, Program, random_program
from queue_reference import Line
from runner import LineSide, Side, run

import delaykit as dk

MOST = 4.0


def delays(program: Program, layers) -> list[torch.Tensor]:
    generator, out = torch.Generator().manual_seed(program.seed), []
    for layer, granularity in zip(layers, program.granularities, strict=True):
        post, pre = layer.weight.shape
        shape = {"layer": (), "axonal": (pre,), "dendritic": (post,), "synaptic": (post, pre)}[granularity]
        d = MOST * torch.rand(shape, generator=generator, dtype=torch.float64)
        out.append(d.round() if program.whole else d)
    return out


def bare(program: Program):
    torch.manual_seed(program.seed)
    net = nets.build(program.kind)
    with torch.no_grad():
        for layer in nets.layers(net, program.kind):
            layer.weight.abs_().mul_(1.5)
    return net


def wrapped(program: Program, net):
    names, found = nets.NAMES[program.kind], nets.layers(net, program.kind)
    reset = {"manual": "manual", "root": "root"}.get(program.policy, "auto")
    rules = {
        name: dk.At(dk.FreeDelay(g, max_delay=MOST, init=d.tolist()), reset=reset)
        for name, g, d in zip(names, program.granularities, delays(program, found), strict=True)
    }
    x = torch.zeros(4, 2, nets.PRE, dtype=torch.float64)
    example = {
        "outer": lambda: net(x[0]),
        "inner": lambda: net(x, None, program.seen_views),
        "chain": lambda: net(x[0], None),
        "cell": lambda: net(x[0], None),
    }[program.kind]
    dk.wrap_(net, rules, example=example)
    with torch.no_grad():
        found = nets.layers(net, program.kind)
        for layer, d in zip(found, delays(program, found), strict=True):
            layer.dk.delay.delay.copy_(d)
    return net


def reference(program: Program, net):
    found = nets.layers(net, program.kind)
    triples = zip(found, delays(program, found), program.granularities, strict=True)
    lines = [Line(layer, d, g, program.views) for layer, d, g in triples]
    if program.kind == "cell":
        nets.take_currents_from(net, lines)
    return LineSide(lines, program.kind in ("chain", "cell") or program.kind == "outer" and program.policy == "auto")


def may_refuse(program: Program, side: LineSide) -> bool:
    """Tell whether an error is an answer to this program: two readings, or something delaykit cannot see."""
    edits = [e for s in program.sequences for e in s.edits]
    if program.views > 1:  # a membrane that the caller replaces before every step names no stream
        replaced = [sum(not e.name.startswith("weight") for e in s.edits) for s in program.sequences]
        if any(n == s.time - 1 for n, s in zip(replaced, program.sequences, strict=True)):
            return True
    return (
        side.unclear
        or (program.threads and program.kind == "inner")
        or program.views != program.seen_views
        or any(EDITS[program.kind][e.name][1] for e in edits)
        or any(s.gradients and e.name == "weight replaced" for s in program.sequences for e in s.edits)
    )


def difference(program: Program) -> str:
    """Run a program on both; return what is wrong, or "" (equal) or "refused" (an error that is an answer)."""
    net = bare(program)
    twin = bare(program)  # not a copy: utils.reset would not know it
    side = reference(program, twin)
    wanted = run(program, twin, side)
    try:
        wrapped(program, net)
        got = run(program, net, Side(lambda: dk.reset(net), lambda mask: dk.reset(net, rows=mask)))
    except dk.DelaykitError as error:
        return "refused" if may_refuse(program, side) else f"a false alarm: {type(error).__name__}: {error}"
    except Exception as error:  # any other error is a fault, too
        return f"{type(error).__name__}: {error}"
    return _unequal(got, wanted)


def _unequal(got, wanted) -> str:
    for n, (mine, theirs) in enumerate(zip(got[0], wanted[0], strict=True)):
        for t, (one, two) in enumerate(zip(mine, theirs, strict=True)):
            if one.shape != two.shape or not torch.allclose(one, two, rtol=1e-9, atol=1e-9):
                return f"sequence {n}, call {t}: {one.flatten()[:4].tolist()} for {two.flatten()[:4].tolist()}"
    for name, grad in wanted[1].items():
        mine = got[1].get(name)
        if mine is None:
            mine = torch.zeros_like(grad)
        if not torch.allclose(mine, grad, rtol=1e-8, atol=1e-9):
            return f"gradient of {name}: off by {float((mine - grad).abs().max()):.3g}"
    return ""


def fuzz(seeds) -> tuple[dict[int, str], int]:
    """Run many programs; return the faults by seed, and how many were refused."""
    faults, refused = {}, 0
    for seed in seeds:
        random.seed(seed)
        verdict = difference(random_program(seed))
        refused += verdict == "refused"
        if verdict not in ("", "refused"):
            faults[seed] = verdict
    return faults, refused


def report(faults: dict[int, str]) -> str:
    lines = [f"{seed}: {text}\n    {random_program(seed)}" for seed, text in list(faults.items())[:5]]
    return f"{len(faults)} programs differ\n" + "\n".join(lines)
