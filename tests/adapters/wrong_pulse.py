"""An adapter of the library Pulse that answers wrongly where it is told to, networks of its neurons, and who asks."""

from __future__ import annotations

from typing import Any

import pulse
import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.adapters import LIFDynamics, NeuronAdapter, Spot

page = pulse.load()
SPIKES = (torch.rand(6, 2, 6, generator=torch.Generator().manual_seed(1)) < 0.5).float()


class Listed(page.PulseAdapter):
    """Lists the Linears, too, so that its own attach_ is asked."""

    def find(self, path, module):
        if type(module) is nn.Linear and not path.endswith("inner"):
            return [Spot(path, "", module, module.in_features, module.out_features)], None
        return super().find(path, module)


def wrong(method: str, answer: Any) -> type[NeuronAdapter]:
    return type("Wrong", (Listed,), {method: lambda self, *args, **kwargs: answer() if callable(answer) else answer})


def kept() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), page.Keep(), nn.Linear(8, 4), page.Keep())


def delayed(net: nn.Module, **rules: Any) -> nn.Module:
    rules = rules or {"0": dk.FreeDelay("axonal", init=2.0), "3": dk.Recurrent(dk.FreeDelay("layer", init=1.0))}
    run = page.run if isinstance(net, nn.Sequential) else lambda net, spikes: net(spikes)
    return dk.wrap_(net, rules, example=lambda: run(net, SPIKES))


def followed(net: nn.Module) -> nn.Module:
    return delayed(net, **{"0": dk.FreeDelay("axonal", init=2.0)})


def lingering(net: nn.Module) -> nn.Module:
    return delayed(net, **{"0": pytest.importorskip("delaykit_hetsyn", reason="puts HetSyn before a neuron").HetSyn()})


def constants(net: nn.Module) -> Any:
    return dk.wrap_(net, {"1": dk.TimeConstants("membrane")}, example=lambda: page.run(net, SPIKES))


def exact(net: nn.Module) -> Any:
    return delayed(net, **{"0": dk.FreeDelay("layer", init=1.0, estimator="exact")})


def lif(**fields: Any) -> LIFDynamics:
    return LIFDynamics(**({"decay": 0.8, "surrogate": page.fire, "reset_when": "same"} | fields))


def broken() -> None:
    raise ZeroDivisionError("slip")
