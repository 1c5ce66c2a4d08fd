"""Where the rows of a connection's output are when they come to a neuron."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.planning.between.layout import codes, joined

snn = pytest.importorskip("snntorch", reason="wraps snntorch models")


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 33])
def test_no_two_rows_are_marked_alike(size) -> None:
    marks = torch.stack(codes(size)).T.tolist()
    assert len({tuple(row) for row in marks}) == size
    # each differs from each other in a mark that it has, and in one that it has not
    for a in marks:
        for b in marks:
            assert a == b or any(x and not y for x, y in zip(a, b, strict=True))


class Net(nn.Module):
    def __init__(self, behind):
        super().__init__()
        self.fc, self.lif, self.behind = nn.Linear(2, 3), snn.Leaky(0.9, init_hidden=True), behind

    def forward(self, x):
        return self.lif(self.behind(self.fc(x)))


def written(y):
    out = torch.zeros_like(y)
    out.copy_(y)
    return out.relu_().mul_(2)


def written_flipped(y):
    out = y.clone()
    out.copy_(y.flip(0))
    return out


def one_moved(y):
    return y[[0, 2, 1, *range(3, len(y))]]


WAYS = {
    "same": [
        lambda y: y, torch.relu, written, lambda y: y.flip(-1), lambda y: y * 2 + 1, lambda y: y.flip(0).flip(0),
        lambda y: nn.functional.layer_norm(y, (3,)), lambda y: torch.where(y > 0, y, y * 0.1), lambda y: y.softmax(-1),
        lambda y: (y > 0).float(), lambda y: y + torch.rand_like(y), lambda y: torch.stack([y, y]).sum(0),
    ],
    "grouped": [lambda y: y.unflatten(0, (-1, 2)), lambda y: y.unflatten(0, (-1, 2)).mean(1), lambda y: y.view(4, 6)],
    "moved": [
        lambda y: y.flip(0), written_flipped, one_moved, lambda y: y.roll(1, 0), lambda y: y[[0] * len(y)],
        lambda y: y - y.mean(0), lambda y: y.t(), lambda y: y.sum(0, keepdim=True),
        lambda y: y.unflatten(0, (2, -1)).sum(0), lambda y: y.unflatten(0, (-1, 2)).flip(0),
        lambda y: y.unflatten(0, (2, -1)).transpose(0, 1),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("layout", "behind"), [
    pytest.param(layout, one, id=f"{layout}{k}") for layout, ways in WAYS.items() for k, one in enumerate(ways)
])  # fmt: skip
def test_what_lies_between(layout, behind) -> None:
    x = torch.rand(8, 2, generator=torch.Generator().manual_seed(0))
    net = Net(behind)
    before = torch.get_rng_state()
    assert dk.plan(net, {"fc": dk.FreeDelay("axonal")}, example=x).sites[0].timing.rows == layout
    assert torch.equal(before, torch.get_rng_state())


class Whole(nn.Module):
    def __init__(self, turned):
        super().__init__()
        self.fc, self.lif, self.turned = nn.Linear(2, 3), snn.Leaky(0.9), turned

    def forward(self, x):
        mem, out = self.lif.reset_mem(), []
        for step in self.fc(x):
            spikes, mem = self.lif(step.flip(0) if self.turned else step, mem)
            out.append(spikes)
        return torch.stack(out)


@pytest.mark.parametrize("turned", [False, True])
def test_whole_sequences_are_read_behind_time(turned) -> None:
    plan = dk.plan(Whole(turned), {"fc": dk.At(dk.FreeDelay("axonal"), time_dim=0)}, example=torch.rand(6, 4, 2))
    assert plan.sites[0].timing.rows == ("moved" if turned else "same")


def test_of_several_ways_what_is_true_of_all() -> None:
    assert joined(set()) == "same"
    assert joined({"grouped"}) == "grouped"
    assert joined({"same", "grouped"}) == "moved"
