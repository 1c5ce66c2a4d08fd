"""What a neuron that keeps its state is at rest: what begins a sequence, what nobody can tell, what is no state."""

from __future__ import annotations

from collections.abc import Callable

import pulse
import pytest
import torch
from torch import Tensor, nn

import delaykit as dk
from delaykit.adapters import Neuron, NeuronAdapter
from delaykit.attaching.batch.membranes import change_between
from delaykit.errors import PluginError
from delaykit.testing import adapter_on_trial

fire = pulse.load().fire
Rest = Callable[[Tensor | None], object]
SPIKES = (torch.rand(9, 4, 5, generator=torch.Generator().manual_seed(1)) < 0.5).float()


class Resting(nn.Module):
    """Keeps its membrane, and comes to a rest of its own."""

    def __init__(self, rest: Rest) -> None:
        super().__init__()
        self.rest = rest
        self.v = rest(None)

    def clear(self) -> None:
        self.v = self.rest(self.v if isinstance(self.v, Tensor) else None)

    def forward(self, current: Tensor) -> Tensor:
        v = current if self.v is None else self.v * 0.75 + current
        spikes = fire(v - 1.0)
        self.v = v - spikes.detach()
        return spikes


class Adapter(NeuronAdapter):
    name = "resting"
    api = 1

    def find(self, path, module):
        return [], Neuron(path, module, self, follows=True) if isinstance(module, Resting) else None

    def membrane(self, module, state=None):
        return module.v

    def reset_(self, module):
        module.clear()


def run(net: nn.Sequential, spikes: Tensor) -> Tensor:
    """One sequence; returns the membrane, which tells more than spikes."""
    net[1].clear()
    return torch.stack([(net(step), net[1].v)[1] for step in spikes])


def pair(rest: Rest, adapter: type[NeuronAdapter] = Adapter) -> tuple[nn.Sequential, nn.Sequential]:
    """A network with a delay of two steps, and the same without."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 7, bias=False), Resting(rest))
    bare = nn.Sequential(nn.Linear(5, 7, bias=False), Resting(rest))
    bare.load_state_dict(net.state_dict())
    with adapter_on_trial(adapter):
        delay = dk.FreeDelay("axonal", max_delay=5, init=2, learn=False)
        dk.wrap_(net, {"0": delay}, example=lambda: run(net, SPIKES))
    return net, bare


def shifted(spikes: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(spikes[:2]), spikes[:-2]])


SEEN: dict[str, Rest] = {
    "None": lambda v: None,
    "one zero": lambda v: torch.zeros(()),
    "one number": lambda v: torch.full((), -0.5),
    "zeros": lambda v: None if v is None else torch.zeros_like(v),
    "zeros, one row": lambda v: None if v is None else torch.zeros(1, 7),
}


@pytest.mark.parametrize("rest", SEEN)
def test_a_sequence_begins_at_a_rest_that_can_be_seen(rest: str) -> None:
    net, bare = pair(SEEN[rest])
    for spikes in (SPIKES, SPIKES.flip(1), *(() if rest == "zeros" else (SPIKES[:, :2],))):
        torch.testing.assert_close(run(net, spikes), run(bare, shifted(spikes)), rtol=0, atol=1e-6)


def test_a_rest_of_another_number_is_told_by_a_membrane_of_none() -> None:
    class Says(Adapter):
        def membrane(self, module, state=None):
            return None if module.v is not None and bool((module.v == -0.5).all()) else module.v

    net, bare = pair(lambda v: torch.full((4, 7), -0.5), Says)
    for spikes in (SPIKES, SPIKES.flip(1)):
        torch.testing.assert_close(run(net, spikes), run(bare, shifted(spikes)), rtol=0, atol=1e-6)


def test_a_number_is_no_membrane_and_no_fault_of_the_example() -> None:
    with pytest.raises(PluginError, match=r"Adapter.membrane\(\): found 0.0 for a Resting") as caught:
        pair(lambda v: 0.0)
    assert "bare model runs" not in str(caught.value)


def test_a_number_is_no_membrane_later_on() -> None:
    rests: list[object] = [None]
    net, _ = pair(lambda v: rests[0])
    run(net, SPIKES)
    rests[0] = 0.0
    with pytest.raises(PluginError, match=r"Adapter.membrane\(\): found 0.0 for a Resting"):
        run(net, SPIKES)


ROWS = torch.tensor([[1.0, 2.0], [0.0, 3.0]])


@pytest.mark.parametrize(
    ("before", "now", "kind"),
    [
        (ROWS, torch.tensor(0.3), "reset"),
        (ROWS, torch.zeros(3, 2), "reset"),
        (ROWS, torch.zeros(1, 2), "reset"),
        (ROWS, torch.zeros(2, 5), "reset"),
        (torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.zeros(1, 2), "unclear"),  # or the second row alone
        (torch.tensor([[0.5]]), torch.tensor(0.5), "unclear"),
        (ROWS, torch.full((2, 2), 0.5), "edit"),  # a clamp does so; who rests there tells it by None
        (ROWS, ROWS + 0.1, "edit"),
        (torch.zeros(2, 2), torch.full((2, 2), 0.5), "edit"),
        (torch.tensor([[1.5], [2.0]]), torch.ones(2, 1), "edit"),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value.tolist()),
)
def test_what_is_read_off_the_values(before: Tensor, now: Tensor, kind: str) -> None:
    assert change_between(before, now).kind == kind
