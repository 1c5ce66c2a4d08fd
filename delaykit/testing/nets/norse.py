"""Norse networks: a recurrent cell in a loop whose state the user carries, and ``SequentialState``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from delaykit.testing.nets.reference import CurrentBased, Layer
from delaykit.testing.nets.tiny import HIDDEN, OUT, PRE, LoopInside, Record, TinyNet

DT, MEMBRANE_RATE, SYNAPTIC_RATE = 0.001, 0.3, 0.4
STEEPNESS = 1.0  # the "super" surrogate of Norse 1.1 is 1 / (1 + |x|)^2 whatever alpha says


def _parameters() -> Any:
    from norse.torch import LIFParameters

    def exact(value: float) -> Tensor:
        return torch.tensor(value, dtype=torch.float64)

    return LIFParameters(
        tau_mem_inv=exact(MEMBRANE_RATE / DT),
        tau_syn_inv=exact(SYNAPTIC_RATE / DT),
        v_leak=exact(0.0),
        v_th=exact(1.0),
        v_reset=exact(0.0),
        alpha=exact(STEEPNESS),
    )


class _CellModel(nn.Module):
    def __init__(self) -> None:
        from norse.torch import LIFCell, LIFRecurrentCell

        super().__init__()
        self.cell = LIFRecurrentCell(PRE, HIDDEN, p=_parameters())
        self.fc = nn.Linear(HIDDEN, OUT)
        self.out = LIFCell(p=_parameters())
        with torch.no_grad():
            self.cell.input_weights.mul_(1.6)
            self.cell.recurrent_weights.mul_(0.5)
            self.fc.weight.mul_(7.0)

    def forward(self, x: Tensor, states: Any = (None, None)) -> tuple[Tensor, Tensor, Any]:
        first, second = states
        steps = []
        for step in x:
            spk1, first = self.cell(step, first)
            spk2, second = self.out(self.fc(spk1), second)
            steps.append((torch.cat([spk1, spk2], -1), torch.cat([first.v, second.v], -1)))
        return (*Record.of(steps), (first, second))


class NorseCellLoop(TinyNet):
    """LIFRecurrentCell, Linear, LIFCell; the loop is inside ``forward``, states go in and come out.

    The history of ``fc`` begins with each call, so truncated BPTT concerns the cell's connections only.
    """

    name, library, sites = "norse-cell-loop", "norse", ("cell.input", "cell.recurrent", "fc")
    segment_sites = ("cell.input", "cell.recurrent")
    loop_inside = True

    def make(self) -> nn.Module:
        return _CellModel()

    def start(self, net: nn.Module) -> Any:
        return (None, None)

    def advance(self, net: nn.Module, spikes: Tensor, state: Any) -> tuple[Record, Any]:
        out, membranes, state = net(spikes, state)
        return Record(out, membranes), state

    def cut(self, net: nn.Module, state: Any) -> Any:
        return _detached(state)

    def layers(self, net: nn.Module) -> list[Layer]:
        return [Layer("cell.input", "cell.recurrent", _neuron(True)), Layer("fc", None, _neuron(False))]

    def connection(self, net: Any, site: str) -> tuple[Tensor, Tensor | None]:
        if site == "fc":
            return net.fc.weight, net.fc.bias
        return getattr(net.cell, f"{site.removeprefix('cell.')}_weights"), None


class NorseSequential(TinyNet):
    """Linear, LIFCell, Linear, LIFCell in a ``SequentialState`` that the user steps, carrying the state."""

    name, library, sites, segment_sites = "norse-sequential-state", "norse", ("0", "2"), ("0", "2")

    def make(self) -> nn.Module:
        from norse.torch import LIFCell, SequentialState

        net = SequentialState(
            nn.Linear(PRE, HIDDEN), LIFCell(p=_parameters()), nn.Linear(HIDDEN, OUT), LIFCell(p=_parameters())
        )
        with torch.no_grad():
            net[0].weight.mul_(4.0)
            net[2].weight.mul_(7.0)
        return net

    def start(self, net: nn.Module) -> None:
        return None

    def advance(self, net: Any, spikes: Tensor, state: Any) -> tuple[Record, Any]:
        fired: list[Tensor] = []
        handle = net[1].register_forward_hook(lambda module, args, output: fired.append(output[0]))
        try:
            steps = []
            for step in spikes:
                spk, state = net(step, state)
                steps.append((torch.cat([fired[-1], spk], -1), torch.cat([state[1].v, state[3].v], -1)))
        finally:
            handle.remove()
        return Record.of(steps), state

    def cut(self, net: nn.Module, state: Any) -> Any:
        return _detached(state)

    def layers(self, net: nn.Module) -> list[Layer]:
        return [Layer("0", None, _neuron(False)), Layer("2", None, _neuron(False))]

    def connection(self, net: nn.Module, site: str) -> tuple[Tensor, Tensor | None]:
        module: Any = net.get_submodule(site)
        return module.weight, module.bias


def _detached(state: Any) -> Any:
    return _pytree.tree_map(lambda leaf: leaf.detach() if hasattr(leaf, "detach") else leaf, state)


def _neuron(recurrent: bool) -> CurrentBased:
    """Norse detaches the reset of its recurrent cells, and not that of the others."""
    return CurrentBased(MEMBRANE_RATE, SYNAPTIC_RATE, STEEPNESS, detach_reset=recurrent)


class _SharedModel(nn.Module):
    def __init__(self) -> None:
        from norse.torch import LIFCell

        super().__init__()
        self.a = nn.Linear(PRE, PRE)
        self.b = self.a
        self.lif1, self.lif2 = LIFCell(p=_parameters()), LIFCell(p=_parameters())
        with torch.no_grad():
            self.a.weight.mul_(5.0)

    def forward(self, x: Tensor) -> Record:
        first = second = None
        steps = []
        for step in x:
            spk1, first = self.lif1(self.a(step), first)
            spk2, second = self.lif2(self.b(spk1), second)
            steps.append((torch.cat([spk1, spk2], -1), torch.cat([first.v, second.v], -1)))
        return Record.of(steps)


class NorseShared(LoopInside):
    """One Linear under two names, before each of two LIF cells."""

    name, library, sites = "norse-shared", "norse", ("a", "b")

    def make(self) -> nn.Module:
        return _SharedModel()

    def layers(self, net: nn.Module) -> list[Layer]:
        return [Layer("a", None, _neuron(False)), Layer("b", None, _neuron(False))]


SHARED = NorseShared()
NETS: tuple[TinyNet, ...] = (NorseCellLoop(), NorseSequential())
