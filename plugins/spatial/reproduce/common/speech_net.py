"""The paper's network for speech: channels, recurrent hidden neurons with delays on both connections, spike counts."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.records import dims_name
from delaykit import Site
from delaykit_spatial import Spatial
from delaykit_spatial.exact import ExactAdEx, ExactLIF, SuperSpike, exact_arrivals, exact_rollout


@dataclasses.dataclass(frozen=True)
class Setting:
    """What makes a run; times in ms. The defaults are the reduction, with time constants stretched like the step.

    Args:
        kept: share of each weight matrix, the readout's apart, that is left after every epoch (Sp2SNN).
        tortuosity: eps, how much longer than the distance a path may be (figure S4).
        adex: adaptive exponential neurons, with the paper's constants, in place of leaky ones (figure S5).
    """

    dims: float = 2.0
    hidden: int = 64
    channels: int = 70
    classes: int = 20
    dt: float = 5.0
    duration: float = 1000.0
    tau_syn: float = 10.0
    tau_mem: float = 20.0
    gain: float = 0.5
    limit: int | None = 1500
    rate: float = 1e-3
    position_factor: float = 10.0
    epochs: int = 18
    batch: int = 32
    seed: int = 0
    frozen: bool = False
    target_rate: float = 0.01
    rate_weight: float = 1.0
    clip: float = 2.0
    rescale_every: int = 10
    min_slope: float = 0.1
    kept: float = 1.0
    tortuosity: float = 0.0
    adex: bool = False

    def name(self) -> str:
        """Return a name for files."""
        kind = ("_frozen" if self.frozen else "") + ("" if self.kept == 1 else f"_kept{self.kept:g}")
        kind += (f"_eps{self.tortuosity:g}" if self.tortuosity else "") + ("_adex" if self.adex else "")
        return (
            f"{dims_name(self.dims)}d_h{self.hidden}_lr{self.rate:g}x{self.position_factor:g}_e{self.epochs}"
            f"_dt{self.dt:g}{kind}_s{self.seed}"
        )

    def record(self) -> dict[str, Any]:
        """Return JSON values."""
        values = {**dataclasses.asdict(self), "dims": dims_name(self.dims)}
        return {key: value for key, value in values.items() if key not in ("tortuosity", "adex") or value}


class Net(nn.Module):
    """Channels, recurrent hidden neurons, and scores of their spike counts."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        s = self.setting = setting
        generator = torch.Generator().manual_seed(s.seed)
        size = 50.0 if s.hidden > 200 else 10.0 if s.hidden > 50 else 3.0

        def weights(post: int, pre: int, factor: float) -> nn.Parameter:
            return nn.Parameter((torch.rand(post, pre, generator=generator) - 0.2).abs() * factor / (post * pre))

        area = s.gain * 2.0 * 10.0 / (s.tau_syn * s.tau_mem)  # longer time constants make more of a spike,
        summed = s.channels / 700.0  # and a channel that sums several units has more of them
        self.into = weights(s.hidden, s.channels, 400.0 * size * area * summed)
        self.recurrent = weights(s.hidden, s.hidden, 35.0 * area)
        self.readout = weights(s.classes, s.hidden, 1.0)
        into = Spatial(s.dims, pre="input", post="hidden", dt_ms=s.dt, learn=not s.frozen, tortuosity=s.tortuosity)
        within = Spatial(s.dims, post="hidden", dt_ms=s.dt, learn=not s.frozen, tortuosity=s.tortuosity)
        self.delay = into.build(Site("hidden", s.channels, s.hidden), generator)
        self.recurrent_delay = within.build(Site("hidden.recurrent", s.hidden, s.hidden, recurrent=True), generator)
        self.recurrent_delay.meet_([self.delay])
        self.neuron = (ExactAdEx if s.adex else ExactLIF)(tau_mem=s.tau_mem, tau_syn=s.tau_syn, dt=s.dt)

    def hidden(self, spikes: Tensor) -> Tensor:
        """Map input spikes to those of the hidden neurons, (time, batch, hidden)."""
        s = self.setting
        jumps = exact_arrivals(spikes, None, self.into, self.delay.delays(), s.tau_syn, s.dt)
        return exact_rollout(
            *jumps, self.neuron, self.recurrent, self.recurrent_delay.delays(), SuperSpike(),
            rescale_every=s.rescale_every, min_slope=s.min_slope, self_connections=False,
        ).spikes  # fmt: skip

    def forward(self, spikes: Tensor) -> Tensor:
        """Map input spikes to class scores, (batch, class)."""
        return self.hidden(spikes).sum(0) @ self.readout.T

    def loss(self, spikes: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy plus the rates' distance from their target."""
        counts = self.hidden(spikes).sum(0)
        rates = counts.mean(0) / self.setting.duration
        off = (rates - self.setting.target_rate).square().sum()
        return functional.cross_entropy(counts @ self.readout.T, labels) + self.setting.rate_weight * off

    def matrices(self) -> tuple[nn.Parameter, nn.Parameter]:
        """Return the weights of the connections with delays."""
        return self.into, self.recurrent

    def numbers(self) -> tuple[int, int]:
        """Count all parameters, and those that make delays."""
        everything = sum(parameter.numel() for parameter in self.parameters())
        return everything, everything - sum(p.numel() for p in (self.into, self.recurrent, self.readout))
