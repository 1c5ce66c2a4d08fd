"""``torch.func`` and ``torch.export`` that fail on a wrapped model leave no state behind: it runs again, and trains."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import delaykit as dk

snn = pytest.importorskip("snntorch", reason="wraps snnTorch models")
norse = pytest.importorskip("norse.torch", reason="wraps Norse models")

X = torch.rand(6, 2, 3, generator=torch.Generator().manual_seed(0))


class Hidden(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(3, 2), snn.Leaky(0.9, init_hidden=True)

    def forward(self, x):
        self.lif.reset_mem()
        return torch.stack([self.lif(self.fc(step)) for step in x])


class Carried(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(3, 2), norse.LIFCell()

    def forward(self, x):
        state, out = None, []
        for step in x:
            _, state = self.lif(self.fc(step), state)
            out.append(state.v)
        return torch.stack(out)


def grad(net):
    parameters = dict(net.named_parameters())
    torch.func.grad(lambda p: torch.func.functional_call(net, p, (X,)).sum())(parameters)


TRANSFORMS = {
    "grad": grad,
    "jvp": lambda net: torch.func.jvp(net, (X,), (X,)),
    "vmap": lambda net: torch.func.vmap(net, in_dims=1)(X.unsqueeze(2)),
    "export": lambda net: torch.export.export(net, (X,)),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("build", [Hidden, Carried], ids=["snnTorch", "Norse"])
def test_a_transform_that_fails_leaves_nothing_behind(build, transform):
    net = dk.wrap_(build(), {"fc": dk.FreeDelay("axonal", init=1.5)}, example=X)
    before = net(X)
    wanted = torch.autograd.grad(before.sum(), list(net.parameters()))
    for _ in range(2):
        with pytest.raises((dk.errors.DelaykitError, RuntimeError)):
            TRANSFORMS[transform](net)
        after = net(X)
        assert torch.equal(after, before)
        assert all(map(torch.equal, torch.autograd.grad(after.sum(), list(net.parameters())), wanted))
