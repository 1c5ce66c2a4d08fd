"""Where neurons were while they trained: one snapshot an epoch."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from delaykit import ConfigError, UnknownNameError, checks
from delaykit_spatial.report import populations


@checks.annotated
@dataclasses.dataclass
class PositionHistory:
    """Record the positions of every population, once before training and once an epoch.

    Args:
        positions: for each population one tensor ``(neuron, dims)`` a snapshot, on the CPU.

    Example:
        >>> import delaykit as dk
        >>> from delaykit_spatial import Spatial
        >>> net = nn.Sequential(nn.Linear(2, 1))
        >>> _ = dk.wrap_(net, {"0": dk.At(Spatial(2, pre="input", post="out"), reset="manual")})
        >>> history = PositionHistory()
        >>> history.record(net)
        >>> net[0].dk.delay.post_positions.data[:, 0] += 3.0
        >>> history.record(net)
        >>> history.movement("out"), history.movement("input")
        ([3.0], [0.0])
    """

    positions: dict[str, list[Tensor]] = dataclasses.field(default_factory=dict)

    @checks.annotated
    @torch.no_grad()
    def record(self, net: nn.Module) -> None:
        """Take a snapshot.

        Raises:
            ConfigError: the net has no population with positions.
        """
        found = populations(net)
        if not found:
            fix = "wrap with Spatial(dims=2)"
            raise ConfigError("PositionHistory.record", "no positions", "connections with 0 < dims < inf", fix)
        for name, values in found.items():
            self.positions.setdefault(name, []).append(values.detach().cpu().clone())

    @checks.annotated
    def trajectories(self, population: str) -> Tensor:
        """Return the snapshots of a population, ``(snapshot, neuron, dims)``.

        Raises:
            UnknownNameError: there are none of that name.
        """
        if population not in self.positions:
            known = f"one of {', '.join(self.positions)}" if self.positions else "a population that was recorded"
            raise UnknownNameError("PositionHistory", f"population {population!r}", known, "call record(net) first")
        return torch.stack(self.positions[population])

    @checks.annotated
    def movement(self, population: str) -> list[float]:
        """Return how far a neuron of a population moved on average, one number an epoch, in length units."""
        steps = self.trajectories(population).diff(dim=0).norm(dim=-1)
        return [round(float(step), 6) for step in steps.mean(-1)]
