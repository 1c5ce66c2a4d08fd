"""What delays did while they trained: one snapshot an epoch."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from delaykit import ConfigError, PointDelay, UnknownNameError, checks

AT_BOUND = 0.01  # steps; closer than this to 0 or to the maximum is at the bound


@checks.annotated
@dataclasses.dataclass
class DelayHistory:
    """Record the delays and spreads of every wrapped connection, once before training and once an epoch.

    Args:
        delays: for each connection its delays in steps, one flat tensor a snapshot.
        spreads: for each connection its mean spread in steps, one number a snapshot.
        longest: for each connection its largest allowed delay, where it says one.

    Example:
        >>> import delaykit as dk
        >>> net = dk.wrap_(nn.Sequential(nn.Linear(2, 1)), {"0": dk.At(dk.FreeDelay(init=2.0), reset="manual")})
        >>> history = DelayHistory()
        >>> history.record(net)
        >>> net[0].dk.delay.delay.data += 0.5
        >>> history.record(net)
        >>> history.movement("0")
        [0.5]
    """

    delays: dict[str, list[Tensor]] = dataclasses.field(default_factory=dict)
    spreads: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    longest: dict[str, float] = dataclasses.field(default_factory=dict)

    @checks.annotated
    @torch.no_grad()
    def record(self, net: nn.Module) -> None:
        """Take a snapshot of a wrapped net.

        Raises:
            ConfigError: the net has no delays.
        """
        module: Any
        found = [(name, module) for name, module in net.named_modules() if isinstance(module, PointDelay)]
        if not found:
            raise ConfigError("DelayHistory.record", "no delay", "a net given to dk.wrap_", "wrap it first")
        for name, module in found:
            site = name.removesuffix(".delay").replace(".dk", "") or "connection"
            exact = getattr(module, "exact", module.delays)
            self.delays.setdefault(site, []).append(exact().detach().cpu().flatten().clone())
            self.spreads.setdefault(site, []).append(_spread(module))
            config = getattr(module, "config", None)
            longest = getattr(config, "max_delay", None) or getattr(config, "kernel_size", 0) - 1
            if longest > 0:
                self.longest[site] = float(longest)

    @checks.annotated
    def movement(self, site: str) -> list[float]:
        """Return the mean ``|d_e - d_(e-1)|`` of a connection in steps, one number an epoch."""
        snapshots = self.of(site)
        return [float((b - a).abs().mean()) for a, b in zip(snapshots, snapshots[1:], strict=False)]

    @checks.annotated
    def at_bounds(self, site: str) -> list[float]:
        """Return the fraction of delays at 0 or at the maximum, one number a snapshot."""
        longest = self.longest.get(site, float("inf"))
        return [float(((d < AT_BOUND) | (d > longest - AT_BOUND)).float().mean()) for d in self.of(site)]

    def of(self, site: str) -> list[Tensor]:
        """Return the snapshots of one connection.

        Raises:
            UnknownNameError: there are none of that name.
        """
        if site not in self.delays:
            known = f"one of {', '.join(self.delays)}" if self.delays else "a connection that was recorded"
            raise UnknownNameError("DelayHistory", f"connection {site!r:.80}", known, "call record(net) first")
        return self.delays[site]


def _spread(module: Any) -> float:
    spread = getattr(module.kernel(), "spread", 0.0)
    return float(spread.mean()) if isinstance(spread, Tensor) else float(spread)
