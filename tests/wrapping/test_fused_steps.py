"""What the steps of a fused run are given: inputs cut before the loop, and states that are handed back.

Inputs that are views of one tensor are read where they lie; whatever happens to them, the result is the model's own.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import snntorch as snn
import torch
from fused_cases import HIDDEN, PRE, TIME, TwoLayers, ahead_in, firing, gradients, leaky, loud, spikes
from torch import Tensor, nn

import delaykit as dk
from delaykit.wrapping.fused.units import ConnectionUnit

SHORT = 4  # steps of an example that shows nothing of what happens later


class Cut(TwoLayers):
    """The usual loop over what ``cut`` makes of the input."""

    def __init__(self, cut: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.cut = cut

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2, rec = self.lif1.reset_mem(), self.lif2.reset_mem(), []
        for step in self.cut(x):
            spk1, mem1 = self.lif1(self.fc1(step), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            rec.append(spk2 + mem2)
        return torch.stack(rec)


def _edited(x: Tensor) -> tuple[Tensor, ...]:
    parts = (1.0 * x).unbind(0)
    if len(parts) > SHORT:
        parts[SHORT].neg_()
    return parts


def _edited_on_the_way(x: Tensor) -> tuple[Tensor, ...]:
    whole = 1.0 * x

    def steps() -> object:
        for t, part in enumerate(whole.unbind(0)):
            if t == SHORT:
                whole[t + 1].neg_()
            yield part

    return steps()  # type: ignore[return-value]


def _swapped(x: Tensor) -> tuple[Tensor, ...]:
    parts = list((1.0 * x).unbind(0))
    if len(parts) > SHORT:
        parts[0], parts[SHORT] = parts[SHORT], parts[0]
    return tuple(parts)


CUTS: dict[str, tuple[Callable[[Tensor], tuple[Tensor, ...]], int | None]] = {  # and the dimension that is cut
    "iterated": (tuple, 0),
    "unbound": (lambda x: x.unbind(), 0),
    "along the second": (lambda x: torch.unbind(x, 1), 1),
    "along the last but one, by name": (lambda x: torch.unbind(input=x, dim=-2), 1),
    "of another tensor": (lambda x: (1.0 * x).unbind(0), 0),
    "split": (lambda x: tuple(part[0] for part in x.split(1)), None),
    "edited": (_edited, None),
    "edited on the way": (_edited_on_the_way, None),
    "swapped": (_swapped, None),
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(11)


def _torch_takes(name: str, wrapped: bool, asks: bool) -> bool:
    """Whether the loop itself runs: views of a cut that are edited have no gradient, nor has what bare layers keep."""
    return not (asks and name.startswith("edited")) and (wrapped or name != "edited on the way")


CASES = [(name, wrapped, asks) for name in CUTS for wrapped in (False, True) for asks in (False, True)]


@pytest.mark.parametrize(("name", "wrapped", "asks"), [case for case in CASES if _torch_takes(*case)])
def test_inputs_that_are_cut_before_the_loop(name: str, wrapped: bool, asks: bool) -> None:
    cut, dim = CUTS[name]
    net = loud(Cut(cut))
    across = (lambda x: x.transpose(0, 1).contiguous()) if dim == 1 else (lambda x: x)
    if wrapped:
        dk.wrap_(net, {"fc*": dk.FreeDelay("axonal", max_delay=3)}, example=across(spikes(SHORT).detach()))
    fast = dk.fused(net, example=across(spikes(SHORT).detach().requires_grad_(asks)))
    for size in ((TIME, 3), (TIME + 2, 2)):
        x = across(spikes(*size).detach()).requires_grad_(asks)
        given = [x] if asks else []
        (expected, found), (wanted, reached) = zip(*(gradients(net, run(x), given) for run in (net, fast)), strict=True)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
        torch.testing.assert_close(reached, wanted, rtol=1e-9, atol=1e-9)
        assert expected[0].std() > 0.1
    if "edited on" not in name and "swapped" not in name:
        assert ahead_in(fast) == {"fc1", "lif1", "fc2", "lif2"}, str(fast)


@pytest.mark.parametrize("name", [name for name, (_, dim) in CUTS.items() if dim is not None])
def test_cut_inputs_are_not_copied(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cut, dim = CUTS[name]
    net, places = loud(Cut(cut)), []
    x = spikes().detach()
    x = x.transpose(0, 1).contiguous() if dim == 1 else x
    fast = dk.fused(net, example=x)
    real = ConnectionUnit.sequence

    def sequence(self: ConnectionUnit, inputs: Tensor) -> Tensor:
        places.append((inputs.data_ptr(), inputs.stride()))
        return real(self, inputs)

    monkeypatch.setattr(ConnectionUnit, "sequence", sequence)
    fast(x)
    moved = x.movedim(dim or 0, 0)
    same = name != "of another tensor"  # there it is that other one, which is gone
    assert (places[0] == (moved.data_ptr(), moved.stride())) is same
    assert places[0][1] == moved.stride()


class HandsBack(nn.Module):
    """A recurrent layer that is given its spikes and membrane, and from a late step on only one of them."""

    def __init__(self, late: Callable[[Tensor, Tensor], tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.fc = nn.Linear(PRE, HIDDEN)
        self.rec = snn.RLeaky(beta=0.8, threshold=0.5, linear_features=HIDDEN, spike_grad=leaky().spike_grad)
        self.late = late

    def forward(self, x: Tensor) -> Tensor:
        (spk, mem), rec = self.rec.reset_mem(), []
        for t, step in enumerate(x):
            spk, mem = self.rec(self.fc(step), *((spk, mem) if t < SHORT else self.late(spk, mem)))
            rec.append(spk + mem)
        return torch.stack(rec)


LATE: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, ...]]] = {
    "all": lambda spk, mem: (spk, mem),
    "none": lambda spk, mem: (),
    "the membrane in the place of the spikes": lambda spk, mem: (mem,),
    "the spikes alone": lambda spk, mem: (spk,),
    "turned": lambda spk, mem: (mem, spk),
}


@pytest.mark.parametrize("name", LATE)
def test_states_of_a_recurrent_neuron_that_are_handed_back(name: str) -> None:
    net = loud(HandsBack(LATE[name]))
    fast = dk.fused(net, example=spikes(SHORT))
    x = spikes()
    (expected, found), (wanted, reached) = zip(*(gradients(net, run(x), [x]) for run in (net, fast)), strict=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(reached, wanted, rtol=1e-9, atol=1e-9)
    assert "rec" in ahead_in(fast), str(fast)
    assert all(rate > 0.01 for rate in firing(net, fast, x))
