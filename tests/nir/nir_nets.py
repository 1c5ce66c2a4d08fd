"""Three networks that NIR can hold, in float64 and loud enough to fire, and one way to run each."""

from __future__ import annotations

from typing import Any

import nir
import torch
from torch import Tensor, nn

import delaykit as dk
from delaykit.testing.nets.reference import surrogate_spike

PRE, HIDDEN, OUT = 6, 12, 4


class RecurrentNet(nn.Module):
    """Linear, RLeaky, Linear without bias, Synaptic; resets to zero in the spike's own step."""

    def __init__(self, reset: str = "zero") -> None:
        import snntorch as snn

        super().__init__()
        options: dict[str, Any] = {"reset_mechanism": reset, "reset_delay": False, "spike_grad": surrogate_spike}
        self.fc1 = nn.Linear(PRE, HIDDEN)
        self.lif1 = snn.RLeaky(beta=0.8, linear_features=HIDDEN, threshold=0.9, **options)
        self.fc2 = nn.Linear(HIDDEN, OUT, bias=False)
        self.lif2 = snn.Synaptic(alpha=torch.rand(OUT) * 0.5 + 0.2, beta=0.7, threshold=0.6, **options)

    def forward(self, x: Tensor) -> Tensor:
        (spk1, mem1), (syn2, mem2), out = self.lif1.init_rleaky(), self.lif2.init_synaptic(), []
        for step in x:
            spk1, mem1 = self.lif1(self.fc1(step), spk1, mem1)
            spk2, syn2, mem2 = self.lif2(self.fc2(spk1), syn2, mem2)
            out.append(spk2)
        return torch.stack(out)


class CellNet(nn.Module):
    """LIFRecurrentCell, Linear, LIFBoxCell of Norse."""

    def __init__(self) -> None:
        from norse.torch import LIFBoxCell, LIFBoxParameters, LIFParameters, LIFRecurrentCell

        super().__init__()
        rates = {"tau_mem_inv": torch.tensor(300.0).double()}
        self.cell = LIFRecurrentCell(PRE, HIDDEN, p=LIFParameters(**rates, tau_syn_inv=torch.tensor(400.0).double()))
        self.fc = nn.Linear(HIDDEN, OUT)
        self.out = LIFBoxCell(p=LIFBoxParameters(**rates, v_th=torch.tensor(0.5).double()))

    def forward(self, x: Tensor) -> Tensor:
        first = second = None
        out = []
        for step in x:
            spk1, first = self.cell(step, first)
            spk2, second = self.out(self.fc(spk1), second)
            out.append(spk2)
        return torch.stack(out)


class ConvNet(nn.Module):
    """Conv1d, Leaky, Flatten, Linear, Leaky."""

    def __init__(self) -> None:
        import snntorch as snn

        super().__init__()
        options: dict[str, Any] = {"reset_mechanism": "zero", "reset_delay": False, "spike_grad": surrogate_spike}
        self.conv = nn.Conv1d(2, 3, 3, padding=1)
        self.lif1 = snn.Leaky(beta=0.7, threshold=0.4, **options)
        self.flat = nn.Flatten()
        self.fc = nn.Linear(3 * PRE, OUT)
        self.lif2 = snn.Leaky(beta=0.8, threshold=0.5, **options)

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for step in x:
            spk1, mem1 = self.lif1(self.conv(step), mem1)
            spk2, mem2 = self.lif2(self.fc(self.flat(spk1)), mem2)
            out.append(spk2)
        return torch.stack(out)


def spikes(*shape: int, seed: int = 0, rate: float = 0.4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(*shape, generator=generator) < rate).double()


def whole(granularity: str, most: int = 11, **options: Any) -> dk.FreeDelay:
    return dk.FreeDelay(granularity, max_delay=most, init="integers", **options)


def louder_(net: nn.Module, factor: float) -> nn.Module:
    with torch.no_grad():
        for p in net.parameters():
            if p.dim() > 1:
                p.mul_(factor)
    return net


def recurrent(first: str, loop: str, second: str, seed: int = 0, reset: str = "zero") -> nn.Module:
    torch.manual_seed(seed)
    net = louder_(RecurrentNet(reset).double(), 2.5)
    rules = {"fc1": whole(first), "lif1.recurrent": whole(loop), "fc2": whole(second)}
    return dk.wrap_(net, rules, example=spikes(4, 1, PRE), generator=torch.Generator().manual_seed(seed))


def cells(first: str, loop: str, second: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    net = louder_(CellNet().double(), 4.0)
    rules = {"cell.input": whole(first), "cell.recurrent": whole(loop), "fc": whole(second)}
    return dk.wrap_(net, rules, example=spikes(4, 1, PRE), generator=torch.Generator().manual_seed(seed))


def convolutional(first: str, second: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    net = louder_(ConvNet().double(), 2.0)
    rules = {"conv": whole(first), "fc": whole(second)}
    return dk.wrap_(net, rules, example=spikes(4, 1, 2, PRE), generator=torch.Generator().manual_seed(seed))


def check(net: nn.Module, shape: tuple[int, ...], tmp_path: Any, dt_ms: float | None = 1.0, **options: Any) -> Any:
    """Write, read, and compare the spikes on spikes that the writer never saw."""
    example = spikes(40, 2, *shape, seed=1)
    dk.to_nir(net, example, dt_ms, path=tmp_path / "net.nir", **options)
    twin = dk.from_nir(nir.read(str(tmp_path / "net.nir")))  # as delaykit does, which first lets another process try
    x = spikes(60, 3, *shape, seed=2)  # several times the longest delay
    with torch.no_grad():
        wanted, found = net(x), twin(x)
    rate = float(wanted.mean())
    assert 0.02 < rate < 0.6, f"the net fires {rate:.1%} of the time: nothing would be proved"
    assert torch.equal(found.to(wanted), wanted), f"{int((found != wanted).sum())} spikes differ"
    return twin
