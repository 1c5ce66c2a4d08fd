"""Rows alone: whatever is done to the rows of a batch, each goes on as it would in a run of its own.

For components whose current no short reference computes (kernels, lingering currents, motifs, loops that delaykit
adds): their values are judged by the component's own laws, here by runs of one row whose states nobody touches.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import Any

import norse.torch as norse
import pytest
import snntorch as snn
import torch
from nets import Spike
from torch import nn
from torch.utils._pytree import tree_map

import delaykit as dk

TIME, PRE, HIDDEN, BATCH = 14, 3, 4, 4
WAYS = ("tree", "tensors", "hand", "in place")  # how a Norse state, or a membrane, is changed


@dataclasses.dataclass(frozen=True)
class Change:
    """What is done before a step: ``select``, ``drop``, ``zero``, ``forget``, ``weight``, ``data``, ``clone``."""

    time: int
    name: str
    argument: Any = None


def leaky(kind=snn.Leaky, **options):
    return kind(0.8, spike_grad=Spike.apply, threshold=0.6, init_hidden=True, output=True, **options)


def norse_parameters():
    return norse.LIFParameters(tau_mem_inv=torch.tensor(300.0), v_th=torch.tensor(0.6))


def chain():
    neurons = norse.LIFCell(norse_parameters()), norse.LICell()
    return norse.SequentialState(nn.Linear(PRE, HIDDEN), neurons[0], nn.Linear(HIDDEN, HIDDEN), neurons[1])


def cell():
    return norse.LIFRecurrentCell(PRE, HIDDEN, norse_parameters())


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "follow": (lambda: nn.Sequential(nn.Linear(PRE, HIDDEN), leaky()), ("0",)),
    "loop": (lambda: nn.Sequential(nn.Linear(PRE, HIDDEN), leaky()), ("1",)),
    "recurrent": (
        lambda: nn.Sequential(nn.Linear(PRE, HIDDEN), leaky(snn.RLeaky, linear_features=HIDDEN)),
        ("1.recurrent",),
    ),
    "chain": (chain, ("0", "2")),
    "input": (cell, ("input",)),
    "recurrent cell": (cell, ("recurrent",)),
    "loop cell": (lambda: norse.LIFCell(norse_parameters()), ("",)),
}


def plugin(name: str) -> Any:
    return pytest.importorskip(f"delaykit_{name}", reason="fuzzes that plugin")


def hetsyn(**options: Any) -> Any:
    return plugin("hetsyn").HetSyn(tau=("uniform", 2.0, 9.0), dt_ms=1.0, **options)


COMPONENTS: dict[str, Callable[[], tuple[Any, ...]]] = {
    "axonal": lambda: (dk.FreeDelay("axonal", max_delay=4, init=2.5),),
    "dendritic": lambda: (dk.FreeDelay("dendritic", max_delay=4, init=2.5),),
    "synaptic": lambda: (dk.FreeDelay("synaptic", max_delay=4, init=2.5),),
    "delrec": lambda: (plugin("delrec").DelRec(max_delay=5, sigma=1.0, init="uniform"),),
    "motif": lambda: (plugin("motifs").Motif(depth=4),),
    "spatial": lambda: (plugin("spatial").Spatial(dims=2, scale=3.0),),
    "hetsyn": lambda: (hetsyn(),),
    "hetsyn groups": lambda: (hetsyn(groups=3),),
    "delayed hetsyn": lambda: (dk.FreeDelay("synaptic", max_delay=4, init=1.5), hetsyn()),
}


def build(model: str, component: str) -> nn.Module:
    """Make a wrapped net in float64, the same one each time."""
    torch.manual_seed(3)
    make, sites = MODELS[model]
    net = make().double()
    with torch.no_grad():
        for p in net.parameters():
            if p.ndim == 2:
                p.abs_().mul_(1.5)
    parts, x = COMPONENTS[component](), torch.zeros(2, width(model), dtype=torch.float64)
    rule = dk.Recurrent(*parts) if model.startswith("loop") else parts
    example = (lambda: net(x)) if keeps_membranes(net) else (lambda: net(x, None))
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # a cell without parameters leaves the dtype of its loop to the default
    try:
        dk.wrap_(net, dict.fromkeys(sites, rule), example=example, generator=torch.Generator().manual_seed(7))
    finally:
        torch.set_default_dtype(before)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name.endswith("taps"):
                p.copy_(torch.rand(p.shape, generator=torch.Generator().manual_seed(1), dtype=p.dtype) / 2)
    return net


def keeps_membranes(net: nn.Module) -> bool:
    """Tell snnTorch's nets, whose neurons keep their membranes, from Norse's, whose states are handed on."""
    return isinstance(net, nn.Sequential) and hasattr(net[1], "reset_mem")


def width(model: str) -> int:
    return HIDDEN if model == "loop cell" else PRE


def spikes(seed: int, model: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    strength = 2.5 if keeps_membranes(MODELS[model][0]()) else 12.5
    return strength * (torch.rand(TIME, BATCH, width(model), generator=generator) < 0.45).double()


def change_weights(net: nn.Module, change: Change) -> None:
    factor = 0.5 + change.argument
    with torch.no_grad():
        for name, p in net.named_parameters():
            if p.ndim == 2 and name.endswith(("weight", "_weights")) and ".delay" not in name:
                if change.name == "weight":
                    p.mul_(factor)
                else:
                    p.data = p.data * factor


def places(change: Change) -> list[int]:
    return list(range(change.argument)) if change.name == "drop" else change.argument


def changed(change: Change, value: torch.Tensor) -> torch.Tensor:
    """Do to one part of a state what a change says."""
    if change.name == "zero":
        return value * (~torch.tensor(change.argument)).double().unsqueeze(1)
    if change.name == "clone":
        return value.detach().clone()
    return value[: change.argument] if change.name == "drop" else value[change.argument]


def write_zeros(change: Change, values: Any) -> None:
    with torch.no_grad():
        for value in values:
            value.mul_((~torch.tensor(change.argument)).double().unsqueeze(1))


def change_membrane(neuron: Any, change: Change, way: str) -> None:
    names = [name for name in ("spk", "mem") if isinstance(getattr(neuron, name, None), torch.Tensor)]
    if change.name == "zero" and way == "in place":
        write_zeros(change, [getattr(neuron, name) for name in names])
        return
    for name in names:
        setattr(neuron, name, changed(change, getattr(neuron, name)))


def listed(state: Any) -> list[Any]:
    return state if isinstance(state, list) else [state]


def change_state(state: Any, change: Change, way: str) -> Any:
    parts = listed(state)
    if change.name == "zero" and way == "in place":
        write_zeros(change, [v for s in parts if hasattr(s, "_fields") for v in s])
        return state
    if way == "tensors":
        return tree_map(lambda v: changed(change, v) if torch.is_tensor(v) else v, state)
    if way == "hand":
        new = [
            s._replace(**{k: changed(change, getattr(s, k)) for k in s._fields}) if hasattr(s, "_fields") else s
            for s in parts
        ]
        return new if isinstance(state, list) else new[0]
    return tree_map(lambda v: changed(change, v), state)


class Unseen(Exception):
    """A row is moved or begun anew whose values stay what they were: by the rule, equal values continue."""


def refuse_unseen(change: Change, values: list[torch.Tensor]) -> None:
    """Leave out a change of which the values of one neuron, ``(batch, neuron)`` each, do not tell."""
    old = torch.cat([value.detach() for value in values], 1)
    new, moved = changed(change, old), change.argument
    if change.name == "select":
        moved = [k != place for k, place in enumerate(change.argument)]
    if any(gone and torch.equal(new[k], old[k]) for k, gone in enumerate(moved)):
        raise Unseen


def run(net: nn.Module, x: torch.Tensor, changes: list[Change], way: str, begin: int = 0) -> list[torch.Tensor]:
    """Run from step ``begin`` to the end; return what each step gave, one row a row of the batch."""
    at, rows, state, out = {c.time: c for c in changes}, list(range(x.shape[1])), None, []
    hidden = keeps_membranes(net)
    if hidden:
        net[1].reset_mem()
    for t in range(begin, TIME):
        change = at.get(t)
        if change is not None and change.name in ("weight", "data"):
            change_weights(net, change)
        elif change is not None and change.name == "forget":
            dk.reset(net, rows=torch.tensor(change.argument))
        elif change is not None:
            if change.name in ("select", "zero") and (hidden or way != "tree"):  # a tree takes the histories along
                kept = [[net[1].mem]] if hidden else [s for s in listed(state) if hasattr(s, "_fields")]
                for values in kept:
                    refuse_unseen(change, list(values))
            if change.name in ("select", "drop"):
                rows = [rows[k] for k in places(change)]
            if hidden:
                change_membrane(net[1], change, way)
            else:
                state = change_state(state, change, way)
        if hidden:
            spk, mem = net(x[t][rows])
            out.append(spk + mem)
        else:
            y, state = net(x[t][rows], state)
            out.append(y.clone() if isinstance(state, list) else state.v + state.i)
    return out


def program(seed: int) -> list[Change]:
    """Make the changes of a seed."""
    r, batch, t, changes = random.Random(seed), BATCH, 1, []
    for _ in range(r.choice((1, 1, 2))):
        t, argument = r.randint(t, TIME - 3), None
        name = r.choice(("select", "drop", "drop", "weight", "data", "zero", "zero", "clone", "forget"))
        if name == "select":
            argument = r.sample(range(batch), r.choice((batch, batch, max(1, batch - 1))))
        elif name == "drop":
            argument = r.randint(1, batch)
        elif name in ("weight", "data"):
            argument = r.random()
        elif name != "clone":
            argument = [r.random() < 0.5 for _ in range(batch)]
        batch = len(argument) if name == "select" else argument if name == "drop" else batch
        changes.append(Change(t, name, argument))
        t += 1
        if t > TIME - 3:
            break
    return changes


def wanted(make: Callable[[], nn.Module], x: torch.Tensor, changes: list[Change]) -> list[torch.Tensor]:
    """Say what each row must give: the run of that row alone since it began, with the weights' changes."""
    rows: list[tuple[int, int, tuple[int, ...]]] = [(row, 0, ()) for row in range(x.shape[1])]  # which, since, forgot
    spans, begin = [], 0
    for change in [*changes, Change(TIME, "end")]:
        spans.append((begin, change.time, list(rows)))
        begin = change.time
        if change.name in ("select", "drop"):
            rows = [rows[k] for k in places(change)]
        elif change.name == "zero":
            rows = [(r[0], change.time, ()) if new else r for r, new in zip(rows, change.argument, strict=True)]
        elif change.name == "forget":
            pairs = zip(rows, change.argument, strict=True)
            rows = [(r[0], r[1], (*r[2], change.time)) if gone else r for r, gone in pairs]
    alone: dict[Any, list[torch.Tensor]] = {}

    def of(row: tuple[int, int, tuple[int, ...]]) -> list[torch.Tensor]:
        if row not in alone:
            net, (which, since, forgot) = make(), row
            weights = [c for c in changes if c.name in ("weight", "data")]
            for change in weights:
                if change.time < since:
                    change_weights(net, change)
            own = [c for c in weights if c.time >= since] + [Change(t, "forget", [True]) for t in forgot]
            alone[row] = run(net, x[:, which : which + 1], own, "tree", since)
        return alone[row]

    return [torch.cat([of(r)[t - r[1]] for r in live]) for first, last, live in spans for t in range(first, last)]


def verdict(seed: int, model: str, component: str, way: str, gradients: bool) -> str:
    """Compare one program with runs of single rows: "" if equal, "refused", or what is wrong."""
    changes, x = program(seed), spikes(seed, model)
    with torch.set_grad_enabled(gradients):
        try:
            got = run(build(model, component), x, changes, way)
        except (dk.HistoryError, Unseen):
            return "refused"
        except dk.ConfigError as error:  # rows= of a history that rides in the state
            return "refused" if any(c.name == "forget" for c in changes) else str(error)
        want = wanted(lambda: build(model, component), x, changes)
    for t, (one, two) in enumerate(zip(got, want, strict=True)):
        if one.shape != two.shape or not torch.allclose(one, two, rtol=1e-9, atol=1e-9):
            return f"step {t} differs: {changes}"
    return ""
