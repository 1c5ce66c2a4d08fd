"""A row of a carried state that is put to a rest which is not zero, in the middle of a sequence."""

from __future__ import annotations

from typing import NamedTuple

import pulse
import pytest
import torch
from torch import Tensor, nn

import delaykit as dk
from delaykit.adapters import Neuron, NeuronAdapter
from delaykit.testing import adapter_on_trial

fire = pulse.load().fire
REST, AT = -0.25, 6
SPIKES = (torch.rand(12, 3, 6, generator=torch.Generator().manual_seed(1)) < 0.6).float()


class State(NamedTuple):
    v: Tensor
    i: Tensor


class Rill(nn.Module):
    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        state = State(torch.full_like(x, REST), torch.zeros_like(x)) if state is None else state
        i = 0.5 * state.i + x
        v = 0.8 * state.v + 0.2 * REST + i
        spikes = fire(v - 1.0)
        return spikes, State(v - spikes.detach(), i)


class RillAdapter(NeuronAdapter):
    name, api = "rill", 1

    def find(self, path, module):
        return [], Neuron(path, module, self) if isinstance(module, Rill) else None

    def membrane(self, module, state=None):
        return getattr(state, "v", None)

    def resting(self, module, state):
        return State(torch.full_like(state.v, REST), torch.zeros_like(state.i))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.cell = nn.Linear(6, 8), Rill()
        nn.init.uniform_(self.fc.weight, -1.0, 1.5)

    def forward(self, x: Tensor, row: int | None = None, told: bool = False) -> Tensor:
        state, out = None, []
        for t, step in enumerate(x):
            if t == AT and row is not None and state is not None:
                if told:  # the lines that do not ride in the state
                    dk.reset(self.fc, rows=torch.arange(len(step)) == row)
                v, i = state.v.clone(), state.i.clone()
                v[row], i[row] = REST, 0.0
                state = state._replace(v=v, i=i)
            spikes, state = self.cell(self.fc(step), state)
            out.append(spikes)
        return torch.stack(out)


LATE = dk.FreeDelay("axonal", max_delay=5, init=2)
RULES = {
    "before": {"fc": LATE}, "own": {"cell": dk.Recurrent(LATE)}, "both": {"fc": LATE, "cell": dk.Recurrent(LATE)},
}  # fmt: skip


@pytest.mark.parametrize("rules", RULES)
def test_a_row_at_a_rest_of_its_own_begins_anew_or_is_told_how(rules: str) -> None:
    with adapter_on_trial(RillAdapter), torch.no_grad():
        net = dk.wrap_(Net(), RULES[rules], example=SPIKES)
        wanted = net(SPIKES)
        assert wanted.any()
        wanted[AT:, 1] = net(SPIKES[AT:])[:, 1]
        if rules == "own":  # nobody has read its line yet when the state comes
            assert torch.equal(net(SPIKES, row=1), wanted)
        else:
            found = r"call .*dk\.reset\(net, rows=mask\) for some rows, before .*\(dk\.reset\(net\.fc, rows=mask\)"
            with pytest.raises(dk.HistoryError, match=found):
                net(SPIKES, row=1)
            assert torch.equal(net(SPIKES, row=1, told=True), wanted)


def test_rows_of_lines_beside_carried_ones_are_reset_by_their_module() -> None:
    with adapter_on_trial(RillAdapter), torch.no_grad():
        net = dk.wrap_(Net(), RULES["both"], example=SPIKES)
        with pytest.raises(dk.HistoryError, match=r"ride in the state .*dk\.reset\(net\.fc, rows=\.\.\.\)"):
            dk.reset(net, rows=[True, False, False])
