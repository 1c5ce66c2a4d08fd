"""A sequence that goes on behind another one on the same snnTorch neurons, and membranes written to in a root's loop.

The line of the older sequence is gone, so its membrane is refused where it comes back, by value: it may be a copy.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import snntorch as snn
import torch
from snntorch import utils
from torch import Tensor, nn

import delaykit as dk
from delaykit.attaching.batch.older_membranes import OlderMembranes

TIME, BATCH, DELAY = 12, 4, 3
DATA = 2.0 * (torch.rand(2, TIME, BATCH, 6, generator=torch.Generator().manual_seed(2)) < 0.4)
Edit = Callable[[Tensor], Tensor] | None


class Steps(nn.Module):
    """One step a call, its state handed on."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc1, self.lif1 = nn.Linear(6, 8), snn.Leaky(beta=0.9)
        self.fc2, self.lif2 = nn.Linear(8, 4), snn.Leaky(beta=0.9)

    def forward(self, x: Tensor, mem1: Tensor, mem2: Tensor) -> tuple[Tensor, Tensor]:
        spikes, mem1 = self.lif1(self.fc1(x), mem1)
        _, mem2 = self.lif2(self.fc2(spikes), mem2)
        return mem1, mem2

    def rest(self) -> tuple[Tensor, Tensor]:
        return self.lif1.reset_mem(), self.lif2.reset_mem()


class Loop(Steps):
    """The loop inside; at the sixth step it edits its membranes, or runs itself on other data."""

    def forward(self, x: Tensor, edit: Edit = None, other: Tensor | None = None) -> Tensor:  # type: ignore[override]
        state, out = self.rest(), []
        for t, frame in enumerate(x):
            state = Steps.forward(self, frame, *state)
            out.append(state[1].clone())
            if t == 5 and edit is not None:
                with torch.no_grad():
                    for membrane in state:
                        membrane.copy_(edit(membrane))
            if t == 5 and other is not None:
                self(other)
        return torch.stack(out)


def run(net: nn.Module, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    state, out = state or net.rest(), []  # type: ignore[operator]
    for frame in x:
        state = net(frame, *state)
        out.append(state[1])
    return torch.stack(out), state


def delayed(net: nn.Module, example: Callable[[], object]) -> nn.Module:
    return dk.wrap_(net, {"fc*": dk.FreeDelay("axonal", max_delay=5, init=DELAY)}, example=example)


def by_hand(x: Tensor, noise: float = 0.0) -> Tensor:
    """The bare net behind two queues."""
    net, first, second, state, out = Steps(), [], [], None, []
    state = net.rest()
    for frame in x:
        mem1, mem2 = state
        first.append(frame)
        spikes, mem1 = net.lif1(net.fc1(first[-1 - DELAY] if len(first) > DELAY else 0 * frame), mem1)
        second.append(spikes)
        late = second[-1 - DELAY] if len(second) > DELAY else 0 * spikes
        _, mem2 = net.lif2(net.fc2(late), mem2)
        state = (mem1 + noise, mem2 + noise)
        out.append(state[1])
    return torch.stack(out)


@pytest.mark.parametrize("said", [False, True], ids=["", "reset said"])
@pytest.mark.parametrize("copied", [False, True], ids=["the same tensors", "copies"])
def test_a_validation_within_a_sequence(copied: bool, said: bool) -> None:
    net = Steps()
    delayed(net, lambda: run(net, DATA[0]))
    _, state = run(net, DATA[0][:6])
    if said:
        dk.reset(net)
    with torch.no_grad():
        found, _ = run(net, DATA[1])
    torch.testing.assert_close(found, by_hand(DATA[1]))
    kept = tuple(mem.clone() for mem in state) if copied else state
    with pytest.raises(dk.HistoryError, match="another sequence"):
        run(net, DATA[0][6:], kept)


def test_two_users_in_turns_whose_states_are_stored() -> None:
    net, states = Steps(), [None, None]
    delayed(net, lambda: run(net, DATA[0]))

    def serve() -> None:
        for begin in range(0, TIME, 4):
            for user, x in enumerate(DATA):
                _, state = run(net, x[begin : begin + 4], states[user])
                states[user] = tuple(mem.clone() for mem in state)

    with torch.no_grad(), pytest.raises(dk.HistoryError, match="another sequence"):
        serve()


def test_the_model_within_its_own_forward() -> None:
    net = Loop()
    delayed(net, lambda: net(DATA[0]))
    with pytest.raises(dk.HistoryError, match="another sequence"):
        net(DATA[0], other=DATA[1][:4])


def test_a_membrane_put_back_behind_another_sequence() -> None:
    net = nn.Sequential(nn.Linear(6, 8), snn.Leaky(beta=0.9, init_hidden=True))
    dk.wrap_(net, {"0": dk.FreeDelay("axonal", max_delay=5, init=DELAY)}, example=lambda: [net(x) for x in DATA[0]])
    utils.reset(net)
    for x in DATA[0][:6]:
        net(x)
    kept = net[1].mem
    utils.reset(net)
    for x in DATA[1]:
        net(x)
    net[1].mem = kept
    with pytest.raises(dk.HistoryError, match="another sequence"):
        net(DATA[0][6])


def test_edits_in_later_sequences_stay_edits() -> None:
    net = Steps()
    delayed(net, lambda: run(net, DATA[0]))
    for x in (*DATA, *DATA):
        state, out = net.rest(), []
        for frame in x:
            state = tuple(mem + 0.01 for mem in net(frame, *state))
            out.append(state[1])
        torch.testing.assert_close(torch.stack(out), by_hand(x, noise=0.01))


ROWS = torch.tensor([[1.0], [0.0], [1.0], [1.0]])
WRITTEN: dict[str, Callable[[Tensor], Tensor]] = {
    "a row at zero": lambda mem: mem * ROWS,
    "rows swapped": lambda mem: mem[[1, 0, 3, 2]],
    "rows copied": lambda mem: mem[[0, 0, 2, 3]],
}


@pytest.mark.parametrize("name", WRITTEN)
def test_membranes_written_in_place_in_a_loop_inside(name: str) -> None:
    net = Loop()
    delayed(net, lambda: net(DATA[0]))
    with pytest.raises(dk.HistoryError, match="while spikes are under way"), torch.no_grad():
        net(DATA[0], edit=WRITTEN[name])


def test_numbers_written_in_place_in_a_loop_inside_are_edits() -> None:
    net, bare = Loop(), Loop()
    delayed(net, lambda: net(DATA[0]))
    bare.fc1.register_forward_pre_hook(queue())
    bare.fc2.register_forward_pre_hook(queue())
    with torch.no_grad():
        found, expected = (model(DATA[0], edit=lambda mem: mem + 0.25) for model in (net, bare))
    torch.testing.assert_close(found, expected)
    assert not torch.equal(found, by_hand(DATA[0]))


def queue() -> Callable[[nn.Module, tuple[Tensor]], Tensor]:
    seen: list[Tensor] = []

    def late(module: nn.Module, given: tuple[Tensor]) -> Tensor:
        seen.append(given[0])
        return seen[-1 - DELAY] if len(seen) > DELAY else 0 * given[0]

    return late


def test_older_membranes_are_known_by_shape_and_numbers() -> None:
    older, one = OlderMembranes(), torch.tensor([[0.5, -0.25]], dtype=torch.bfloat16)
    older.note(None)
    older.note(torch.zeros(2, 2))
    assert one not in older and torch.zeros(2, 2) not in older
    older.note(one)
    assert one.clone() in older and one.t().t() in older
    assert one.reshape(2, 1) not in older and one + 1 not in older
