"""SpikingJelly in multi-step mode, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator

from measure import Way
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn
from work import BETA, THRESHOLD, Work

PACKAGES = ["spikingjelly==2.0.0"]


def ways(work: Work, tensors: dict[str, Tensor]) -> Iterator[Way]:
    """Feed-forward networks; it has no recurrent layer that runs in multi-step mode."""
    if work.kind == "recurrent":
        return
    parts: list[nn.Module] = []
    for k, (pre, post) in enumerate(zip(work.sizes, work.sizes[1:], strict=False)):
        connection = layer.Linear(pre, post, bias=False, step_mode="m")
        connection.weight.data.copy_(tensors[f"weight{k}"])
        parts += [connection, neuron.LIFNode(tau=1 / (1 - BETA), decay_input=False, v_threshold=THRESHOLD, v_reset=None,
                                             surrogate_function=surrogate.ATan(), step_mode="m")]  # fmt: skip
    net = nn.Sequential(*parts)

    def run(x: Tensor) -> Tensor:
        functional.reset_net(net)
        spikes: Tensor = net(x)
        return spikes

    yield Way("multi-step", run, list(net.parameters()), "same")
