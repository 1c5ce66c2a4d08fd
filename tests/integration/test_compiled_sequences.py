"""torch.compile of networks that are fed whole sequences: values and gradients are those of the network itself."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import delaykit as dk

PRE, HIDDEN, OUT, TIME, BATCH = 6, 8, 5, 7, 3
WHOLE = {"time_dim": 0, "reset": "root"}

DELAYS: dict[str, tuple[Any, bool]] = {  # and whether no graph breaks at them
    "dendritic": (dk.FreeDelay("dendritic", max_delay=3), True),
    "synaptic": (dk.FreeDelay("synaptic", max_delay=3), True),
    "axonal, triangle": (dk.FreeDelay("axonal", max_delay=3, kernel="triangle", spread=4.0), True),
    "synaptic, triangle": (dk.FreeDelay("synaptic", max_delay=3, kernel="triangle", spread=4.0), True),
    "synaptic, rounded": (dk.FreeDelay("synaptic", max_delay=3, rounding="straight-through"), True),
    "synaptic, gaussian": (dk.FreeDelay("synaptic", max_delay=3, kernel="gaussian", spread=1.5), False),
}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(PRE, HIDDEN), nn.Linear(HIDDEN, OUT)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.tanh(self.fc1(x)))


@pytest.fixture(autouse=True)
def _anew() -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()


def spikes(time: int = TIME) -> Tensor:
    return (torch.rand(time, BATCH, PRE) < 0.5).float()


def assert_compiles(net: nn.Module, fullgraph: bool, *inputs: Tensor) -> None:
    compiled = torch.compile(net, backend="aot_eager", fullgraph=fullgraph)
    for x in inputs:
        found = []
        for run in (net, compiled):
            net.zero_grad()
            given = x.clone().requires_grad_()
            torch.manual_seed(1)
            out = run(given)
            out.square().sum().backward()
            found.append([out.detach(), given.grad, *(p.grad for p in net.parameters())])
        assert float(found[0][0].abs().max()) > 0.1
        torch.testing.assert_close(found[1], found[0])


def whole(delay: Any, make: Callable[[], nn.Module] = Net, rule: str = "fc*") -> nn.Module:
    return dk.wrap(make(), {rule: dk.At(delay, **WHOLE)}, example=spikes())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", DELAYS)
def test_every_delay(name: str) -> None:
    delay, fullgraph = DELAYS[name]
    assert_compiles(whole(delay), fullgraph, spikes(), spikes(), spikes(TIME + 2))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_dropout_draws_the_same_masks() -> None:
    net = whole(dk.FreeDelay("synaptic", max_delay=3))
    for site in dk.wrapped_sites(net):
        site.synapse.delay.dropout = 0.5
    assert_compiles(net, False, spikes(), spikes())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("granularity", ["axonal", "synaptic"])
def test_delays_that_cannot_be_are_refused_by_the_graph(granularity: Any) -> None:
    net = whole(dk.FreeDelay(granularity, max_delay=3))
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    compiled(spikes())
    for value in (math.nan, -1.0, math.inf):
        with torch.no_grad():
            net.fc1.dk.delay.delay.view(-1)[0] = value
        with pytest.raises(dk.DelayRangeError, match="compiled graph"):
            compiled(spikes())


def export_to_onnx(net: nn.Module, x: Tensor, dynamo: bool) -> None:
    if dynamo:
        pytest.importorskip("onnxscript", reason="needs an ONNX exporter")
    torch.onnx.export(net, (x,), io.BytesIO(), dynamo=dynamo)


RECORDERS: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "torch.jit.trace": lambda net, x: torch.jit.trace(net, (x,), check_trace=False),
    "torch.export, strict": lambda net, x: torch.export.export(net, (x,), strict=True),
    "torch.export": lambda net, x: torch.export.export(net, (x,), strict=False),
    "ONNX by tracing": lambda net, x: export_to_onnx(net, x, False),
    "ONNX by torch.export": lambda net, x: export_to_onnx(net, x, True),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("recorder", RECORDERS)
def test_records_of_a_run_are_refused_with_a_sentence(recorder: str, grad: bool) -> None:
    net, x = whole(dk.FreeDelay("synaptic", max_delay=3)), spikes()
    with torch.set_grad_enabled(grad):
        expected = net(x)
        with pytest.raises(Exception) as caught:
            RECORDERS[recorder](net, x)
        error, said = caught.value, []
        while error is not None:
            said.append(str(error))
            error = error.__cause__ or error.__context__  # type: ignore[assignment]
        assert any("would forget the spikes under way" in text for text in said), said
        assert torch.equal(net(x), expected)
