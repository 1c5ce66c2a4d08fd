"""snnTorch states that the caller hands on from call to call of the model: exact, or refused before a wrong number."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import snntorch as snn
import torch
from torch import Tensor, nn

import delaykit as dk
from delaykit.errors import HistoryError

DELAY, STEPS, AT, WIDTH = 3, 8, 4, 2


class Step(nn.Module):
    """One step a call; the state is the caller's."""

    def __init__(self, synaptic: bool = False) -> None:
        super().__init__()
        self.fc = nn.Linear(1, WIDTH, bias=False)
        self.lif: Any = snn.Synaptic(0.5, 0.5, threshold=99.0) if synaptic else snn.Leaky(0.5, threshold=99.0)
        self.fc.weight.data.copy_(torch.tensor([[1.0], [2.0]]))

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        out: tuple[Tensor, ...] = self.lif(self.fc(x), *state)
        return out


@pytest.mark.parametrize("how", ["zeroed", "written"])
def test_rows_that_were_reset_by_name_may_be_zeroed_by_hand(how: str) -> None:
    """``dk.reset(net, rows=)``, as the error advises, and then a state whose row is at zero: nothing is in doubt."""
    net, done = Step(), torch.tensor([True, False])
    dk.wrap_(
        net,
        {"fc": dk.FreeDelay("axonal", max_delay=5, init=DELAY)},
        example=lambda: net(torch.zeros(2, 1), net(torch.zeros(2, 1), net.lif.init_leaky())[1]),
    )
    with torch.no_grad():
        _, mem = net(torch.ones(2, 1), net.lif.init_leaky())
        for _ in range(4):
            _, mem = net(torch.zeros(2, 1), mem)
        _, mem = net(torch.ones(2, 1), mem)
        dk.reset(net, rows=done)
        mem = mem * ~done[:, None] if how == "zeroed" else mem.masked_fill_(done[:, None], 0.0)
        seen = []
        for _ in range(4):
            _, mem = net(torch.zeros(2, 1), mem)
            seen.append(mem)
    assert all(not bool(row[0].any()) for row in seen)  # its spike is gone
    torch.testing.assert_close(seen[2][1] - 0.5 * seen[1][1], torch.tensor([1.0, 2.0]))  # the other's arrives


class Pieces(Step):
    """Several steps a call."""

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        for frame in x:
            _, *rest = super().forward(frame, *state)
            state = tuple(rest)
        return (x, *state)


def begin(net: Step) -> tuple[Tensor, ...]:
    state = net.lif.reset_mem()
    return tuple(state) if isinstance(state, tuple | list) else (state,)


def run(net: Step, x: Tensor, edit: Callable[[Tensor], Tensor], each: int) -> list[Tensor]:
    """Run a sequence; all states are edited before step ``AT``; return the membranes."""
    state, seen = begin(net), []
    for start in range(0, len(x), each):
        if start == AT:
            state = tuple(edit(one) for one in state)
        frame = x[start] if each == 1 else x[start : start + each]
        _, *rest = net(frame, *state)
        state = tuple(rest)
        seen.append(state[-1].detach().clone())
    return seen


def wrapped(kind: str, granularity: str, synaptic: bool = False) -> tuple[Step, int]:
    net, each = (Step(synaptic), 1) if kind == "steps" else (Pieces(synaptic), 2)
    frames = torch.zeros(STEPS, 2, 1)
    delay = dk.FreeDelay(granularity, max_delay=5, init=float(DELAY))
    dk.wrap_(net, {"fc": delay}, example=lambda: run(net, frames, lambda v: v, each))
    return net, each


def spikes() -> Tensor:
    x = torch.zeros(STEPS, 2, 1)
    x[:2, 0] = 1.0
    return x


EDITS: dict[str, Callable[[Tensor], Tensor]] = {
    "flipped": lambda v: v.flip(0),
    "a row at rest": lambda v: v * torch.tensor([[0.0], [1.0]]),
    "another sequence": lambda v: torch.zeros(2, WIDTH),
    "other rows": lambda v: v[[0, 0]],
}

KEPT: dict[str, Callable[[Tensor], Tensor]] = {
    "the same": lambda v: v,
    "a clone": lambda v: v.detach().clone(),
    "an edit": lambda v: v * 0.5 + 0.1,
}


@pytest.mark.parametrize("granularity", ["axonal", "dendritic", "synaptic"])
@pytest.mark.parametrize("kind", ["steps", "pieces"])
@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("synaptic", [False, True], ids=["leaky", "synaptic"])
def test_other_rows_are_refused(edit: str, kind: str, granularity: str, synaptic: bool) -> None:
    net, each = wrapped(kind, granularity, synaptic)
    x = spikes()
    x[0, 1] = 0.5
    with pytest.raises(HistoryError, match=r"lif'? .*under way"):
        run(net, x, EDITS[edit], each)


@pytest.mark.parametrize("kind", ["steps", "pieces"])
@pytest.mark.parametrize("name", KEPT)
def test_what_is_no_reset_goes_on(name: str, kind: str) -> None:
    edit = KEPT[name]
    net, each = wrapped(kind, "axonal")
    got = run(net, spikes(), edit, each)
    state, line, want = torch.zeros(2, WIDTH), [torch.zeros(2, 1)] * DELAY, []
    for t, frame in enumerate(spikes()):
        line.append(frame)
        state = (edit(state) if t == AT else state) * 0.5 + line.pop(0) * torch.tensor([1.0, 2.0])
        want.append(state)
    assert all(torch.allclose(a, b) for a, b in zip(got, want[each - 1 :: each], strict=True))


@pytest.mark.parametrize("kind", ["steps", "pieces"])
def test_an_older_state_and_turns_of_two_runs_are_refused(kind: str) -> None:
    net, each = wrapped(kind, "axonal")
    x = spikes()
    frames = [x[k] if each == 1 else x[k : k + each] for k in range(0, len(x), each)]
    states = [begin(net)]
    for frame in frames[:2]:
        states.append(tuple(net(frame, *states[-1])[1:]))
    with pytest.raises(HistoryError, match="another sequence"):
        net(frames[2], *states[-2])
    ours, theirs = begin(net), begin(net)
    with pytest.raises(HistoryError, match="under way|another sequence"):
        for frame in frames:
            ours = tuple(net(frame, *ours)[1:])
            theirs = tuple(net(frame, *theirs)[1:])


@pytest.mark.parametrize("granularity", ["axonal", "dendritic", "synaptic"])
@pytest.mark.parametrize("block", ["around", "between", "for good"])
def test_spikes_under_way_outlive_rounding(block: str, granularity: str) -> None:
    net = nn.Sequential(nn.Linear(1, 1, bias=False), snn.Leaky(0.5, threshold=99.0, init_hidden=True, output=True))
    net[0].weight.data.fill_(1.0)
    delay = dk.FreeDelay(granularity, max_delay=5, init=float(DELAY))
    dk.wrap_(net, {"0": delay}, example=torch.zeros(1, 1))
    x = torch.zeros(STEPS, 1, 1)
    x[2] = 1.0
    net[1].reset_mem()
    seen = []
    for k, piece in enumerate(x.split(AT)):
        if k and block == "between":
            with dk.discretized(net):
                pass
        if k and block == "for good":
            dk.finalize_(net)
        with dk.discretized(net) if block == "around" else contextlib.nullcontext():
            seen += [net(frame)[1].item() for frame in piece]
        net[1].mem = net[1].mem.detach()
    assert seen == [0.0] * 5 + [1.0, 0.5, 0.25]


def test_a_sequence_does_not_go_on_behind_a_disabled_block() -> None:
    net = nn.Sequential(nn.Linear(1, 1, bias=False), snn.Leaky(0.5, threshold=99.0, init_hidden=True, output=True))
    dk.wrap_(net, {"0": dk.FreeDelay("axonal", max_delay=5, init=3.0)}, example=torch.zeros(1, 1))
    for _ in range(2):
        net[1].reset_mem()
        net(torch.ones(1, 1))
        with dk.disabled(net):
            pass
        with pytest.raises(HistoryError, match="dk.disabled block"):
            net(torch.ones(1, 1))
    dk.reset(net)
    net(torch.ones(1, 1))
    net[1].reset_mem()
    with dk.disabled(net):
        net(torch.ones(1, 1))
    net(torch.ones(1, 1))
